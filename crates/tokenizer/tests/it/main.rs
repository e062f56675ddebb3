//! What the crate promises, against the course's reference, tiktoken and Hugging Face.

mod fixtures;
mod formats;
mod golden;
mod gpt2;
mod real;
mod training;
