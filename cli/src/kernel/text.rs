// SPDX-License-Identifier: GPL-2.0-or-later
//! Whether a unit can notice the difference between two preprocessed texts of it.
//!
//! A header reaches many units, and most of them use nothing of what changes in it. A function that is
//! `static inline`, and one that is only declared, leaves nothing in an object of which nothing else
//! names it: GCC outputs such a function only where it is called or its address is taken ("An Inline
//! Function is As Fast As a Macro" in its manual). So a text may differ in those. Whatever is not
//! understood counts as something that the unit notices.

use std::collections::{HashMap, HashSet};

/// Words before parentheses that do not declare anything.
const ATTRIBUTES: [&str; 6] =
    ["__attribute__", "__attribute", "__typeof__", "__typeof", "typeof", "_Alignas"];
/// What no declaration of one function has outside its parentheses.
const OTHER: [&str; 8] = ["=", "{", "[", ",", "typedef", "asm", "__asm", "__asm__"];
/// What stands before a parenthesis and is no function's name.
const NO_NAMES: [&str; 11] = [
    "_Static_assert",
    "void",
    "char",
    "short",
    "int",
    "long",
    "float",
    "double",
    "signed",
    "unsigned",
    "_Bool",
];
/// How functions begin that GCC calls without being told to ("Other Built-in Functions Provided by GCC" in
/// its manual).
const IMPLIED: [&str; 5] = ["mem", "str", "bcmp", "bcopy", "bzero"];
/// Attributes that make a function more than what its callers need, and the words that give it
/// another name.
const KEPT: [&str; 7] =
    ["used", "constructor", "destructor", "alias", "weakref", "ifunc", "externally_visible"];
const INLINE: [&str; 3] = ["inline", "__inline", "__inline__"];

/// Whether the two are different to the compiler, beyond functions that nothing in them uses.
pub(super) fn differs(before: &str, after: &str) -> bool {
    if before == after {
        return false;
    }
    let all: Vec<Item<'_>> = items(before, 0).collect();
    let (old, new) = apart((before, &all), after);
    let mut counts: HashMap<&[&str], isize> = HashMap::new();
    for (items, one) in [(old, 1), (&new, -1)] {
        for item in items {
            *counts.entry(&item.tokens).or_default() += one;
        }
    }
    let is_common = |item: &&Item<'_>| counts.get(item.tokens.as_slice()) == Some(&0);
    let [first, second] =
        [old, &new].map(|items| items.iter().filter(is_common).map(|item| &item.tokens));
    if !first.eq(second) {
        return true;
    }
    let mut names = HashSet::new();
    for item in old.iter().chain(&new).filter(|item| !is_common(item)) {
        match item.function {
            Some(name) => names.insert(name),
            None => return true,
        };
    }
    // Who uses them, who uses those, and so on.
    let mut open: Vec<&str> = names.iter().copied().collect();
    while let Some(name) = open.pop() {
        for item in naming(before, &all, name).chain(naming(after, &new, name)) {
            match item.function {
                Some(function) if names.insert(function) => open.push(function),
                Some(_) => {}
                None => return true,
            }
        }
    }
    false
}

/// What of the items before, and which items after, one text may have and the other one not. At the end
/// of an item the next one begins anew, so where the texts are the same from there on, so are the items.
fn apart<'i, 't>(
    (before, all): (&str, &'i [Item<'t>]),
    after: &'t str,
) -> (&'i [Item<'t>], Vec<Item<'t>>) {
    let same = |(one, other): &(u8, u8)| one == other;
    let prefix = before.bytes().zip(after.bytes()).take_while(same).count();
    let start = all.partition_point(|item| item.end < prefix);
    let from = start.checked_sub(1).and_then(|last| all.get(last)).map_or(0, |last| last.end);
    let [one, other] = [before, after].map(|text| text.bytes().skip(from).rev());
    let suffix = one.zip(other).take_while(same).count();
    let (mut new, mut end) = (Vec::new(), all.len());
    for item in items(after, from) {
        let behind = after.len() - item.end;
        new.push(item);
        if behind <= suffix
            && let Ok(last) = all.binary_search_by_key(&(before.len() - behind), |item| item.end)
        {
            end = last + 1;
            break;
        }
    }
    (all.get(start..end).unwrap_or_default(), new)
}

/// The items that have a name in them; `items` are some of the text, one after the other.
fn naming<'i, 't>(
    text: &'i str,
    items: &'i [Item<'t>],
    name: &'i str,
) -> impl Iterator<Item = &'i Item<'t>> {
    let found = text.match_indices(name).filter_map(move |(at, _)| {
        let item = items.get(items.partition_point(|item| item.end <= at))?;
        (item.start <= at).then_some(item)
    });
    found.filter(move |item| item.tokens.iter().any(|token| mentions(token, name)))
}

/// Whether a token is the name, or assembly or a pragma that has it in it.
fn mentions(token: &str, name: &str) -> bool {
    if token.starts_with(['"', '#']) { token.contains(name) } else { token == name }
}

/// A declaration or definition at file scope.
struct Item<'t> {
    tokens: Vec<&'t str>,
    /// The function that it declares, or defines as static and inline.
    function: Option<&'t str>,
    /// Where in the text it begins, in bytes, or the white space before it does.
    start: usize,
    /// Where it ends.
    end: usize,
}

/// The items of a text from the end of one of them on, or from its start.
fn items(text: &str, from: usize) -> impl Iterator<Item = Item<'_>> {
    let mut at = from;
    std::iter::from_fn(move || {
        let item = item(text, at)?;
        at = item.end;
        Some(item)
    })
}

/// The next item of a text. One that is taken apart wrongly is so in both texts, and is no function.
fn item(text: &str, start: usize) -> Option<Item<'_>> {
    let (mut tokens, mut depth) = (Vec::new(), 0_usize);
    // Of which function this is the body.
    let mut body = None;
    let mut end = start;
    while let Some(token) = token(text, &mut end) {
        match token {
            "{" if depth == 0 && body.is_none() => {
                body = declared(&tokens);
                depth += 1;
            }
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        let ends = match token {
            ";" => true,
            "}" => body.is_some(),
            line => line.starts_with('#') && tokens.is_empty(),
        };
        if depth > 0 || !ends {
            tokens.push(token);
            continue;
        }
        let function = match body {
            Some(name) => is_static_inline(&tokens).then_some(name),
            None if token == ";" => declared(&tokens),
            None => None,
        };
        tokens.push(token);
        return Some(Item { tokens, function, start, end });
    }
    (!tokens.is_empty()).then_some(Item { tokens, function: None, start, end })
}

/// The one function that these tokens, which end before a `;` or a body, declare. Its name stands before
/// the first parenthesis that is not an attribute's; behind its parameters there are only attributes.
fn declared<'t>(tokens: &[&'t str]) -> Option<&'t str> {
    let (mut depth, mut in_attribute, mut name) = (0_usize, false, None);
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "(" if depth == 0 && !in_attribute => {
                if name.is_some() {
                    return None;
                }
                name = Some(named(tokens, at)?);
                depth += 1;
            }
            "(" => depth += 1,
            ")" => {
                depth = depth.checked_sub(1)?;
                in_attribute &= depth > 0;
            }
            word if depth == 0 => {
                in_attribute = ATTRIBUTES.contains(&word);
                if OTHER.contains(&word) || name.is_some() && !in_attribute {
                    return None;
                }
            }
            word if in_attribute && KEPT.contains(&word.trim_matches('_')) => return None,
            _ => {}
        }
    }
    name
}

/// The function's name before a parenthesis, if it is one.
fn named<'t>(tokens: &[&'t str], parenthesis: usize) -> Option<&'t str> {
    let before = |back: usize| tokens.get(parenthesis.checked_sub(back)?).copied();
    let is_tag = ["struct", "union", "enum"].map(Some).contains(&before(2));
    let is_pointer = ["*", "("].map(Some).contains(&tokens.get(parenthesis + 1).copied());
    let is_name = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && !NO_NAMES.contains(word)
            && !IMPLIED.iter().any(|start| word.starts_with(start))
    };
    before(1).filter(is_name).filter(|_| !is_tag && !is_pointer)
}

/// Whether a definition is that of a static and inline function; a parameter may be `int a[static 4]`.
fn is_static_inline(item: &[&str]) -> bool {
    let mut depth = 0_usize;
    let (mut is_static, mut is_inline) = (false, false);
    for word in item {
        match *word {
            "(" | "{" => depth += 1,
            ")" | "}" => depth = depth.saturating_sub(1),
            word if depth == 0 => {
                is_static |= word == "static";
                is_inline |= INLINE.contains(&word);
            }
            _ => {}
        }
    }
    is_static && is_inline
}

/// The next token of a preprocessed text, behind which `at` is then; what remains of a directive is one.
fn token<'t>(text: &'t str, at: &mut usize) -> Option<&'t str> {
    let bytes = text.as_bytes();
    let start = *at + bytes.get(*at..)?.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let rest = bytes.get(start..)?;
    let until = |ends: fn(&u8) -> bool| {
        let behind = rest.iter().skip(1).position(ends);
        behind.map_or(rest.len(), |at| at + 1)
    };
    let length = match *rest.first()? {
        quote @ (b'"' | b'\'') => quoted(rest, quote),
        b'#' => until(|byte| *byte == b'\n'),
        byte if is_part(byte) => until(|byte| !is_part(*byte)),
        // A character may have several bytes.
        _ => until(|byte| byte & 0xc0 != 0x80),
    };
    *at = start + length;
    text.get(start..*at)
}

/// Whether a byte is a part of a name or a number.
fn is_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

/// Bytes of the string or character that a text starts with.
fn quoted(text: &[u8], quote: u8) -> usize {
    let mut bytes = text.iter().enumerate().skip(1);
    while let Some((at, byte)) = bytes.next() {
        if *byte == b'\\' {
            bytes.next();
        } else if *byte == quote {
            return at + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INLINE: &str = "static inline __attribute__((__unused__)) int";

    /// A unit around a header.
    fn unit(header: &str) -> String {
        format!(
            "typedef struct {{ int n; }} s_t;\n{header}\nint other(s_t *s);\n\
             int main_of(s_t *s) {{ return s->n + other(s); }}\n"
        )
    }

    fn object(text: &str) -> Vec<u8> {
        let place = tempfile::tempdir().unwrap();
        let [source, object] = ["a.c", "a.o"].map(|name| place.path().join(name));
        std::fs::write(&source, text).unwrap();
        let mut gcc = std::process::Command::new("gcc");
        gcc.current_dir(place.path()).args(["-O2", "-c", "-w", "-ffunction-sections", "a.c"]);
        assert!(gcc.status().unwrap().success(), "{text}");
        std::fs::read(object).unwrap()
    }

    #[test]
    fn what_nothing_uses_may_differ() {
        let f = format!("{INLINE} f(int a) {{ return a; }}");
        let grown = format!("{INLINE} f(int a, int b) {{ return a + b; }}");
        let cases = [
            ("", f.as_str()),
            (&f, ""),
            (&f, &grown),
            ("int f(int);", "int f(int, long) __attribute__((__cold__));"),
            ("struct s *f(int (*g)(int));", ""),
            (
                &f,
                &format!(
                    "{INLINE} f(void) {{ static void *p __attribute__((__used__)) = &p; return 1; }}"
                ),
            ),
            // Another one that nobody uses may use it.
            (
                &format!("{f} {INLINE} g(void) {{ return f(1); }}"),
                &format!("{grown} {INLINE} g(void) {{ return f(1, 2); }}"),
            ),
        ];
        for (before, after) in cases {
            let [before, after] = [before, after].map(unit);
            assert!(!differs(&before, &after), "{before}\n{after}");
            assert!(object(&before) == object(&after), "the compiler sees it:\n{before}\n{after}");
        }
    }

    #[test]
    fn what_something_uses_must_not() {
        let f = |value: &str| format!("{INLINE} f(void) {{ return {value}; }}");
        let used = |value: &str| format!("{} int user(void) {{ return f(); }}", f(value));
        let through = |value: &str| {
            format!("{} {INLINE} g(void) {{ return f(); }} int (*p)(void) = g;", f(value))
        };
        let kept = |value: &str| {
            format!("{INLINE} __attribute__((__used__)) f(void) {{ return {value}; }}")
        };
        let global = |value: &str| format!("inline int f(void) {{ return {value}; }} int f(void);");
        let array = |value: &str| {
            format!("extern inline int f(int a[static 4]) {{ return *a + {value}; }}")
        };
        let assembly = |name: &str| format!("asm(\".globl {name}\");");
        for (before, after) in [
            (used("1"), used("2")),
            (through("1"), through("2")),
            (kept("1"), kept("2")),
            (global("1"), global("2")),
            (array("1"), array("2")),
            (assembly("a"), assembly("b")),
            (String::new(), "int v;".into()),
            ("int v = 1;".into(), "int v = 2;".into()),
            ("u_t (*v)(int);".replace("u_t", "s_t"), String::new()),
            ("int a __attribute__((aligned(8))), f(int);".into(), "int f(int);".into()),
            ("struct t { int a; } x;".into(), "struct t { long a; } x;".into()),
            ("int a; char b;".into(), "char b; int a;".into()),
            ("int f(int); int (*p)(int) = f;".into(), "int g(int); int (*p)(int) = g;".into()),
        ] {
            let [before, after] = [before, after].map(|header| unit(&header));
            assert!(differs(&before, &after), "{before}\n{after}");
            assert!(object(&before) != object(&after), "no case: {before}\n{after}");
        }
    }

    #[test]
    fn what_is_not_understood_is_not_passed_over() {
        let f = format!("{INLINE} f(void) {{ return 1; }}");
        for (before, after) in [
            // Strings of assembly and pragmas may name it.
            (format!("{f} asm(\"/* f */\");"), "asm(\"/* f */\");".to_owned()),
            (format!("{f}\n#pragma weak f\n"), "\n#pragma weak f\n".to_owned()),
            ("_Static_assert(1, \"a\");".to_owned(), "_Static_assert(2, \"a\");".to_owned()),
            ("void *memcpy(void *, void *, int);".to_owned(), String::new()),
            (format!("{INLINE} strcmp(void) {{ return 1; }}"), String::new()),
            ("__asm__ volatile (\"nop\");".to_owned(), String::new()),
        ] {
            assert!(differs(&unit(&before), &unit(&after)), "{before}\n{after}");
        }
        assert!(!differs("char a = '\"'; int f(void);", "char a = '\"'; int f(int);"));
    }
}
