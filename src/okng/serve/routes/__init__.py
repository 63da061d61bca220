"""The REST interface, a file a subject, and the pages."""

from okng.serve.routes import accounts, inspect, jobs, models, operation, pages, results, reviews

ROUTERS = (
    *(part.router for part in (inspect, results, reviews, models, jobs, accounts, operation)),
    *pages.ROUTERS,
)
