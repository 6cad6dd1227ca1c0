"""The notebook gate: nbval, strict, with its holes closed. `plugin.py` says how."""
