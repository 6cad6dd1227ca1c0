"""One method, one file, named as `make_weighting` knows it: its card, formula, deviations, class.

A new file in this folder is a new rule: nothing else lists them.
"""

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
