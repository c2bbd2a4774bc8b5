//! What can be wrong with a packet: all of it is the sender's fault.

use crate::tnetstring::TnetError;

/// A packet that cannot be understood. The text names the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// The first byte is not `T`, or a value other than a map follows, or bytes follow the map.
    #[error("not a ZHTTP packet: want T and one tnetstring map")]
    Format,
    /// A tnetstring inside the packet is malformed.
    #[error(transparent)]
    Tnetstring(#[from] TnetError),
    /// A field has another type or another range than it must have.
    #[error("field {field}: want {want}")]
    Field {
        /// The name of the field on the wire.
        field: &'static str,
        /// What it must be.
        want: &'static str,
    },
    /// A field that this type of packet cannot do without is absent.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// More ids than [`IDS_MAX`](crate::IDS_MAX).
    #[error("more than 128 ids")]
    TooManyIds,
    /// The type of the packet is none that is known.
    #[error("field type: unknown")]
    UnknownType,
}

impl PacketError {
    pub(crate) const fn field(field: &'static str, want: &'static str) -> Self {
        PacketError::Field { field, want }
    }
}
