"""Doors for those who come from elsewhere: names, defaults and meaning of other trainers over our own core."""
