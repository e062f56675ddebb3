//! The transformer: layers, parameters, FLOPs, memory, Hugging Face files.
