"""The one training loop of all methods: phases, passes, epochs, and what is left on the way."""
