//! N-d arrays, a tape, and one folder per operation.
