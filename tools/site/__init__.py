"""The site: the notebooks as pages, a page for each method, the package, built by Sphinx.

`make site` writes build/site/html; nothing is fetched while it is built or read.
"""
