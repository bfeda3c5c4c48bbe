//! Verdicts, the return values that the kernel gives a meaning to, and sets of them.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What an XDP program decides about a packet; the number is the kernel's (`enum xdp_action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[repr(u32)]
pub enum Verdict {
    /// `XDP_ABORTED`: the program failed; the packet is dropped and a tracepoint fires.
    Aborted = 0,
    /// `XDP_DROP`.
    Drop = 1,
    /// `XDP_PASS`: on to the kernel's network stack.
    Pass = 2,
    /// `XDP_TX`: out of the interface that it came in by.
    Tx = 3,
    /// `XDP_REDIRECT`: to another interface, CPU or socket.
    Redirect = 4,
}

impl Verdict {
    /// Every verdict, in order of its number.
    pub const ALL: [Self; 5] = [Self::Aborted, Self::Drop, Self::Pass, Self::Tx, Self::Redirect];

    /// The name in chains.yaml and in output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aborted => "aborted",
            Self::Drop => "drop",
            Self::Pass => "pass",
            Self::Tx => "tx",
            Self::Redirect => "redirect",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that is no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is no verdict\nhelp: verdicts are aborted, drop, pass, tx and redirect")]
pub struct UnknownVerdict {
    /// The word.
    pub word: String,
}

impl FromStr for Verdict {
    type Err = UnknownVerdict;

    fn from_str(word: &str) -> Result<Self, UnknownVerdict> {
        let known = Self::ALL.into_iter().find(|verdict| verdict.name() == word);
        known.ok_or_else(|| UnknownVerdict { word: word.to_owned() })
    }
}

impl TryFrom<u32> for Verdict {
    /// The number, which no verdict has.
    type Error = u32;

    fn try_from(number: u32) -> Result<Self, u32> {
        Self::ALL.get(number as usize).copied().ok_or(number)
    }
}

/// A set of verdicts.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct VerdictSet(u32);

impl VerdictSet {
    /// The set of none.
    pub const EMPTY: Self = Self(0);

    /// The set of `verdict` alone.
    pub const fn only(verdict: Verdict) -> Self {
        Self(1 << verdict as u32)
    }

    /// The set whose mask is `bits`; bits that no verdict has are left out.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits & 0b1_1111)
    }

    /// The mask: bit `n` is set when the verdict with number `n` is in the set.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether `verdict` is in the set.
    pub const fn contains(self, verdict: Verdict) -> bool {
        self.0 & (1 << verdict as u32) != 0
    }

    /// Whether no verdict is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The verdicts in the set, in order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Verdict> {
        Verdict::ALL.into_iter().filter(move |verdict| self.contains(*verdict))
    }
}

impl FromIterator<Verdict> for VerdictSet {
    fn from_iter<I: IntoIterator<Item = Verdict>>(verdicts: I) -> Self {
        Self(verdicts.into_iter().fold(0, |bits, verdict| bits | 1 << verdict as u32))
    }
}

/// As chains.yaml writes it: `[pass, tx]`.
impl fmt::Display for VerdictSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Verdict::name).collect();
        write!(f, "[{}]", names.join(", "))
    }
}

impl fmt::Debug for VerdictSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerdictSet{self}")
    }
}

impl Serialize for VerdictSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for VerdictSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Vec::<Verdict>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        let numbers: Vec<u32> = Verdict::ALL.into_iter().map(|verdict| verdict as u32).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
        assert_eq!(Verdict::try_from(3), Ok(Verdict::Tx));
        assert_eq!(Verdict::try_from(5), Err(5));
    }

    #[test]
    fn names_read_back() {
        for verdict in Verdict::ALL {
            assert_eq!(verdict.name().parse(), Ok(verdict));
        }
        assert!("XDP_PASS".parse::<Verdict>().is_err());
    }

    #[test]
    fn a_set_is_its_mask() {
        let set: VerdictSet = [Verdict::Tx, Verdict::Pass, Verdict::Tx].into_iter().collect();
        assert_eq!(set.bits(), 0b1100);
        assert_eq!(set.to_string(), "[pass, tx]");
        assert!(set.contains(Verdict::Tx) && !set.contains(Verdict::Drop));
        assert_eq!(VerdictSet::from_bits(u32::MAX).iter().count(), 5);
    }
}
