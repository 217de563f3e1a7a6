"""What happens: one file per use case, over the ports that infrastructure implements."""
