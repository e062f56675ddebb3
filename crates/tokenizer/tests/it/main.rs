//! What the crate promises, against the course's reference, tiktoken and Hugging Face.

mod fixtures;
mod golden;
mod gpt2;
mod training;
