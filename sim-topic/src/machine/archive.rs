//! What an archive keeps, and what a replay hands out.
