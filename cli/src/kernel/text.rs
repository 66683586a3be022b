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
    let texts = [before, after].map(tokens);
    let [before, after] = [items(&texts[0]), items(&texts[1])];
    // Only what lies between the items that they begin and end with can be in one of them alone.
    let [start, end] = shared(&before, &after);
    let [old, new] =
        [&before, &after].map(|all| all.get(start..all.len() - end).unwrap_or_default());
    let mut counts: HashMap<&[&str], isize> = HashMap::new();
    for (text, one) in [(old, 1), (new, -1)] {
        for item in text {
            *counts.entry(item.tokens).or_default() += one;
        }
    }
    let is_common = |item: &&Item<'_>| counts.get(item.tokens) == Some(&0);
    let [first, second] =
        [old, new].map(|text| text.iter().filter(is_common).map(|item| item.tokens));
    if !first.eq(second) {
        return true;
    }
    let mut names = HashSet::new();
    for item in old.iter().chain(new).filter(|item| !is_common(item)) {
        match item.function {
            Some(name) => names.insert(name),
            None => return true,
        };
    }
    // Who uses them, who uses those, and so on.
    let all = || before.iter().chain(new);
    loop {
        let known = names.len();
        for item in all() {
            if item.function.is_some_and(|name| names.contains(name))
                || !item.tokens.iter().any(|token| mentions(token, &names))
            {
                continue;
            }
            match item.function {
                Some(name) => names.insert(name),
                None => return true,
            };
        }
        if names.len() == known {
            return false;
        }
    }
}

/// How many items two texts have in common at their start, and behind that at their end.
fn shared(before: &[Item<'_>], after: &[Item<'_>]) -> [usize; 2] {
    let same = |(one, other): &(&Item<'_>, &Item<'_>)| one.tokens == other.tokens;
    let start = before.iter().zip(after).take_while(same).count();
    let [before, after] = [before, after].map(|all| all.get(start..).unwrap_or_default());
    [start, before.iter().rev().zip(after.iter().rev()).take_while(same).count()]
}

/// Whether a token is one of the names, or assembly or a pragma that has one in it.
fn mentions(token: &str, names: &HashSet<&str>) -> bool {
    if token.starts_with(['"', '#']) {
        return names.iter().any(|name| token.contains(name));
    }
    names.contains(token)
}

/// A declaration or definition at file scope.
struct Item<'t> {
    tokens: &'t [&'t str],
    /// The function that it declares, or defines as static and inline.
    function: Option<&'t str>,
}

/// The items of a text. One that is taken apart wrongly is so in both texts, and is no function.
fn items<'t>(tokens: &'t [&'t str]) -> Vec<Item<'t>> {
    let mut items = Vec::new();
    let (mut start, mut depth) = (0, 0_usize);
    // Of which function this is the body.
    let mut body = None;
    for (at, token) in tokens.iter().enumerate() {
        let head = || tokens.get(start..at).unwrap_or_default();
        match *token {
            "{" if depth == 0 && body.is_none() => {
                body = declared(head());
                depth += 1;
            }
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        let ends = match *token {
            ";" => true,
            "}" => body.is_some(),
            line => line.starts_with('#') && start == at,
        };
        if depth > 0 || !ends {
            continue;
        }
        let function = match body.take() {
            Some(name) => is_static_inline(head()).then_some(name),
            None if *token == ";" => declared(head()),
            None => None,
        };
        items.push(Item { tokens: tokens.get(start..=at).unwrap_or_default(), function });
        start = at + 1;
    }
    let tokens = tokens.get(start..).unwrap_or_default();
    if !tokens.is_empty() {
        items.push(Item { tokens, function: None });
    }
    items
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

/// The tokens of a preprocessed text; what remains of a directive is one.
fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' => quoted(rest, first),
            '#' => rest.find('\n').unwrap_or(rest.len()),
            c if is_part(c) => rest.find(|c| !is_part(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (token, behind) = rest.split_at(length);
        tokens.push(token);
        rest = behind.trim_start();
    }
    tokens
}

/// Whether a character is a part of a name or a number.
fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$'
}

/// Bytes of the string or character that a text starts with.
fn quoted(text: &str, quote: char) -> usize {
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        if c == '\\' {
            characters.next();
        } else if c == quote {
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
