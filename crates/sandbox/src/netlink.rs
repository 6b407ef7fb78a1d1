//! The two things that are said to the kernel over netlink: the loopback is up, and every address is the loopback's.
//!
//! Pure: bytes of requests, and what an acknowledgement says. Layouts are those of `linux/netlink.h`, `linux/rtnetlink.h`
//! and `linux/if_link.h`; numbers are in the machine's own byte order, as the interface has it. The crates for netlink are
//! for those who ask questions and bring a runtime; these are three fixed messages.

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// `AF_INET`
    V4,
    /// `AF_INET6`
    V6,
}

/// The loopback is interface 1 of every network namespace (`LOOPBACK_IFINDEX`).
const LOOPBACK: u32 = 1;

const NLMSG_ERROR: u16 = 2;
const RTM_NEWLINK: u16 = 16;
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const IFF_UP: u32 = 1;
const RTA_OIF: u16 = 4;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_STATIC: u8 = 4;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;
const HEADER: usize = 16;

/// "Interface 1 is up."
pub(crate) fn loopback_up() -> Vec<u8> {
    let mut body = vec![0; 4]; // family, padding, type: unspecified
    body.extend(LOOPBACK.to_ne_bytes());
    body.extend(IFF_UP.to_ne_bytes()); // flags
    body.extend(IFF_UP.to_ne_bytes()); // which of them to change
    request(RTM_NEWLINK, 0, &body)
}

/// "Every address of this family is local, by way of interface 1", which is what `ip route add local default dev lo` says.
pub(crate) fn every_address_is_local(family: Family) -> Vec<u8> {
    let family = match family {
        Family::V4 => 2,
        Family::V6 => 10,
    };
    // family, lengths of destination and source, type of service, table, protocol, scope, type
    let mut body = vec![
        family,
        0,
        0,
        0,
        RT_TABLE_LOCAL,
        RTPROT_STATIC,
        RT_SCOPE_HOST,
        RTN_LOCAL,
    ];
    body.extend(0_u32.to_ne_bytes()); // flags
    body.extend(8_u16.to_ne_bytes()); // the attribute's length, itself included
    body.extend(RTA_OIF.to_ne_bytes());
    body.extend(LOOPBACK.to_ne_bytes());
    request(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &body)
}

/// What the kernel answered: 0, or an error number. `None` if this is no acknowledgement.
pub(crate) fn acknowledged(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let code = i32::from_ne_bytes(answer.get(HEADER..HEADER + 4)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(-code)
}

fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
    message.extend([0; 8]); // sequence and port: one request at a time
    message.extend(body);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_states_its_own_length() {
        for message in [loopback_up(), every_address_is_local(Family::V6)] {
            let stated = u32::from_ne_bytes(message[..4].try_into().expect("four bytes"));
            assert_eq!(usize::try_from(stated).ok(), Some(message.len()));
        }
    }

    #[test]
    fn an_acknowledgement_is_told_from_an_error_and_from_anything_else() {
        let answer = |kind: u16, code: i32| {
            let mut answer = vec![0; 4];
            answer.extend(kind.to_ne_bytes());
            answer.extend([0; 10]);
            answer.extend(code.to_ne_bytes());
            answer
        };
        assert_eq!(acknowledged(&answer(2, 0)), Some(0));
        assert_eq!(acknowledged(&answer(2, -17)), Some(17));
        assert_eq!(acknowledged(&answer(24, 0)), None);
        assert_eq!(acknowledged(&[0; 7]), None);
    }
}
