//! What is put and what is read: records, keys, sequence numbers.
