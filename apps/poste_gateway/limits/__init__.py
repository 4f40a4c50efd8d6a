"""How much of the gateway its clients may take, all together and each, and whose turn it is."""
