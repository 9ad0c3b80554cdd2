//! Enhanced fan-out: registered consumers with a rate of their own.
