"""The published language: the types that two Flotilla services exchange."""
