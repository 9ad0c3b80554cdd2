//! The rules of queues on a stream: a cursor and a table of what is in flight.
