"""What is told about the running product: journal, metrics, figures, traces, alerts to sinks."""
