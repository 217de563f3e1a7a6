"""The five verbs that HostFactory calls."""
