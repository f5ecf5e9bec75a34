"""Layer 1: WebAssembly guests as Trio tasks."""
