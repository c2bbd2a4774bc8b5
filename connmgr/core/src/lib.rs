//! The machines of the edge.
