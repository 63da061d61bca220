"""The pages' routes, a file a page."""

from okng.serve.routes.pages import drift, learn, live, login, results, review, rules, threshold

ROUTERS = tuple(part.router for part in (login, live, review, learn, threshold, rules, drift, results))
