"""The tables of alerts: rules, channels, what fires, messages to deliver. See models for the rest."""
