"""What `hostledger bench` measures: sites in directories of their own, and what is done to them."""
