"""Write what their training data covered into the cards of models, from the data themselves.

Training does so itself; this is for models that older versions trained. The files are looked for
beside each model, in the current folder and in ``$PHICALC_DATA``. Run as::

    python tools/renew_domains.py models/water models/benchmarks/ag3
"""

import sys

from phicalc.domain import describe_domain
from phicalc.training.domain import renew_domain

if __name__ == "__main__":
    for name in sys.argv[1:]:
        card = renew_domain(name)
        print(f"{card.name}: {card.sha256}")
        for what, text in describe_domain(card.domain).items():
            print(f"  {what}: {text}")
