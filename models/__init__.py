"""Models shipped with phicalc, one folder each; installed as the package ``phicalc.models``."""
