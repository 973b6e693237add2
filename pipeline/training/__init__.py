"""How a network is trained: one loop, and recipes that say with which figures."""
