"""Models: loading, adapters, the reference, and trunk-and-branch attention."""
