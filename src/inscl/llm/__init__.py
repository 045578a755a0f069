"""One client for any server that speaks the OpenAI protocol, and its replies."""
