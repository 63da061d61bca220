"""The images that are learnt: read, told apart, cut, resized and put into batches."""
