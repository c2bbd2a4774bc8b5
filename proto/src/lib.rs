//! The protobuf messages that publishers send.
