"""The REST interface, a file a subject."""

from okng.serve.routes import accounts, inspect, jobs, models, operation, results, reviews

ROUTERS = tuple(part.router for part in (inspect, results, reviews, models, jobs, accounts, operation))
