//! Passwords in addresses, kept out of whatever is printed.

/// `text` with every password of an address in it replaced by as many `*`, so that columns stay where they are.
pub fn redact(text: &str) -> String {
    let mut out: Vec<char> = text.chars().collect();
    let mut at = 0;
    while let Some(start) = find(&out, at, "://") {
        let start = start + 3;
        let end = (start..out.len()).find(|i| out[*i].is_whitespace() || "\"'`".contains(out[*i]));
        let end = end.unwrap_or(out.len());
        // A password that is not escaped as it should be may have any character in it.
        let host = (start..end).rev().find(|i| out[*i] == '@');
        if let Some(host) = host
            && let Some(colon) = (start..host).find(|i| out[*i] == ':')
        {
            out[colon + 1..host].fill('*');
        }
        at = end;
    }
    for name in ["password=", "PASSWORD=", "sslkey="] {
        let mut at = 0;
        while let Some(start) = find(&out, at, name) {
            let start = start + name.len();
            let end = (start..out.len()).find(|i| out[*i].is_whitespace() || "\"'`&".contains(out[*i]));
            let end = end.unwrap_or(out.len());
            out[start..end].fill('*');
            at = end;
        }
    }
    out.into_iter().collect()
}

/// `text` without anything that may be a password, which in text of no known form is all behind the first colon.
pub(crate) fn mask(text: &str) -> String {
    let shown = redact(text);
    match shown.contains("://") || !shown.contains('@') {
        true => shown,
        false => shown.chars().take_while(|c| *c != ':').chain("…".chars()).collect(),
    }
}

fn find(text: &[char], from: usize, what: &str) -> Option<usize> {
    let what: Vec<char> = what.chars().collect();
    (from..text.len()).find(|i| text[*i..].starts_with(&what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_one_for_one_and_nothing_else_is() {
        for (text, shown) in [
            ("from: postgres://u:pw@h/d # a@b", "from: postgres://u:**@h/d # a@b"),
            ("'postgres://u:p/w@x@h/d', b: 1", "'postgres://u:*****@h/d', b: 1"),
            ("postgres://u@h/d?password=x&sslmode=require", "postgres://u@h/d?password=*&sslmode=require"),
            ("postgres://u@h:5432/d", "postgres://u@h:5432/d"),
            ("sqlite:a.db", "sqlite:a.db"),
            ("two http://a:b@c and ftp://d:ef@g", "two http://a:*@c and ftp://d:**@g"),
        ] {
            assert_eq!(redact(text), shown);
        }
        assert_eq!(mask("user:pw@host"), "user…");
        assert_eq!(mask("mysql:db"), "mysql:db");
    }
}
