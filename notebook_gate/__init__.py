"""A gate for notebooks, of use to any repository: nbval, strict, with its holes closed.

Copy this folder beside your `conftest.py`, or install it; `docs/testing-notebooks.md` says how, and
`plugin.py` what is compared. Nothing here imports anything else of the course.
"""
