"""Feed phicalc what users feed it by mistake, and judge every answer.

``python -m tools.fuzz`` runs all parts; ``--only PART:SEED`` repeats one case alone. A case is
right if its result is finite and sane, if phicalc warns, or if it refuses with one clear error.
"""
