"""A sweep as one HTML page that needs nothing else: what was searched, how the budget went, what was found."""
