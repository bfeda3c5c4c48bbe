//! What two modules say of one map, compared and printed side by side.
//!
//! A line is marked where the two differ for whoever reads the map; names of types and typedefs do not count.

use std::fmt::Write as _;

use crate::MapDef;
use crate::btf::{Btf, LayoutLine, map_type_name};

/// Lines of both sides that are aligned by name; longer layouts are put beside each other as they stand.
const ALIGNED: usize = 1 << 20;

/// One side of a comparison: a map as a module has it.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// The heading, e.g. `gtp-decap/sessions`.
    pub name: &'a str,
    /// The definition.
    pub def: &'a MapDef,
    /// The types that its type ids are of.
    pub btf: &'a Btf,
}

impl Side<'_> {
    fn lines(&self) -> Vec<Line> {
        let def = self.def;
        let mut lines = vec![
            Line::plain("type", map_type_name(def.map_type)),
            Line::plain("max_entries", format!("max_entries {}", def.max_entries)),
            Line::plain("flags", format!("flags {:#x}", def.flags)),
        ];
        if def.numa_node != 0 {
            lines.push(Line::plain("numa", format!("NUMA node {}", def.numa_node)));
        }
        for (what, size, id) in [("key", def.key_size, def.btf_key), ("value", def.value_size, def.btf_value)]
        {
            lines.push(Line::plain(what, format!("{what} of {size} octets")));
            if id == 0 {
                lines.push(Line::plain("untyped", "    (its type is not known)".to_owned()));
                continue;
            }
            lines.extend(self.btf.layout(id).into_iter().map(Line::typed));
        }
        lines
    }
}

/// A line of one side.
struct Line {
    text: String,
    /// What lines are aligned by.
    name: String,
    layout: Option<LayoutLine>,
}

impl Line {
    fn plain(name: &str, text: String) -> Self {
        Self { text, name: name.to_owned(), layout: None }
    }

    fn typed(line: LayoutLine) -> Self {
        let number = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
        let size = match line.bits {
            Some((bit, _)) => format!("b{bit}"),
            None => number(line.size.map(u64::from)),
        };
        let indent = 4 * line.depth;
        let text = format!("{:>6} {size:>5}  {:indent$}{}", number(line.offset), "", line.text);
        Self { text, name: format!("{} {}", line.depth, line.name), layout: Some(line) }
    }

    fn same(&self, other: &Self) -> bool {
        match (&self.layout, &other.layout) {
            (Some(a), Some(b)) => a.same(b),
            (None, None) => self.text == other.text,
            _ => false,
        }
    }
}

/// Both sides beside each other, in C's manner, with offsets and sizes in octets in front of the fields. Lines that
/// differ begin with `!`. `except` are properties that may differ, as `max_entries`.
pub fn side_by_side(left: &Side<'_>, right: &Side<'_>, except: &[&str]) -> String {
    let (ours, theirs) = (left.lines(), right.lines());
    let rows = align(&ours, &theirs);
    let width = ours.iter().map(|line| line.text.chars().count()).max().unwrap_or(0);
    let width = width.max(left.name.chars().count());
    let mut out = format!("    {:width$}    {}\n", left.name, right.name);
    for (left, right) in rows {
        let same = match (left, right) {
            (Some(left), Some(right)) => left.same(right) || except.contains(&left.name.as_str()),
            _ => false,
        };
        let text = |line: Option<&Line>| line.map(|line| line.text.clone()).unwrap_or_default();
        let mark = if same { ' ' } else { '!' };
        let row = format!("  {mark} {:width$}  {mark} {}", text(left), text(right));
        let _ = writeln!(out, "{}", row.trim_end());
    }
    out.truncate(out.trim_end().len());
    out
}

/// Rows in which lines of one name stand beside each other as far as their order allows.
fn align<'a>(left: &'a [Line], right: &'a [Line]) -> Vec<(Option<&'a Line>, Option<&'a Line>)> {
    if left.len() * right.len() > ALIGNED {
        return (0..left.len().max(right.len())).map(|i| (left.get(i), right.get(i))).collect();
    }
    // Length of the longest common subsequence of what begins at (i, j).
    let columns = right.len() + 1;
    let mut longest = vec![0u32; (left.len() + 1) * columns];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            longest[i * columns + j] = if left[i].name == right[j].name {
                1 + longest[(i + 1) * columns + j + 1]
            } else {
                longest[(i + 1) * columns + j].max(longest[i * columns + j + 1])
            };
        }
    }
    let (mut i, mut j, mut rows) = (0, 0, Vec::new());
    while i < left.len() || j < right.len() {
        if i < left.len() && j < right.len() && left[i].name == right[j].name {
            rows.push((Some(&left[i]), Some(&right[j])));
            (i, j) = (i + 1, j + 1);
        } else if j == right.len()
            || i < left.len() && longest[(i + 1) * columns + j] >= longest[i * columns + j + 1]
        {
            rows.push((Some(&left[i]), None));
            i += 1;
        } else {
            rows.push((None, Some(&right[j])));
            j += 1;
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::{Composite, Member, Type};

    fn int(btf: &mut Btf, name: &str, size: u32) -> u32 {
        btf.push(Type::Int { name: name.into(), size, encoding: 0, offset: 0, bits: (8 * size) as u8 })
    }

    fn map(btf: &mut Btf, fields: &[(&str, u32, u32)], size: u32, map_type: u32) -> MapDef {
        let members = fields
            .iter()
            .map(|(name, ty, octet)| Member {
                name: (*name).into(),
                ty: *ty,
                bit_offset: 8 * octet,
                bit_size: 0,
            })
            .collect();
        let value =
            btf.push(Type::Struct(Composite { name: "flow".into(), size, members, bitfields: false }));
        MapDef {
            name: "flows".into(),
            map_type,
            key_size: 4,
            value_size: size,
            max_entries: 64,
            btf_value: value,
            ..MapDef::default()
        }
    }

    #[test]
    fn fields_of_one_name_stand_beside_each_other_and_differences_are_marked() {
        let mut btf = Btf::new();
        let (u32, word, u64) = (int(&mut btf, "u32", 4), int(&mut btf, "word", 4), int(&mut btf, "u64", 8));
        let has = map(&mut btf, &[("customer", u32, 0), ("spare", u32, 4), ("bytes", u64, 8)], 16, 1);
        let wants = map(&mut btf, &[("customer", word, 0), ("bytes", u32, 4), ("age", u32, 8)], 12, 9);
        let text = side_by_side(
            &Side { name: "gtp/flows", def: &has, btf: &btf },
            &Side { name: "acl/flows", def: &MapDef { max_entries: 1, ..wants.clone() }, btf: &btf },
            &["max_entries"],
        );
        let expected = "    gtp/flows                          acl/flows
  ! hash                             ! lru_hash
    max_entries 64                     max_entries 1
    flags 0x0                          flags 0x0
    key of 4 octets                    key of 4 octets
        (its type is not known)            (its type is not known)
  ! value of 16 octets               ! value of 12 octets
                  struct flow {                      struct flow {
         0     4      u32 customer;         0     4      word customer;
  !      4     4      u32 spare;     !
  !      8     8      u64 bytes;     !      4     4      u32 bytes;
  !                                  !      8     4      u32 age;
  !      0    16  };                 !      0    12  };";
        assert_eq!(text, expected, "\n{text}");
    }
}
