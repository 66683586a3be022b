// SPDX-License-Identifier: GPL-2.0-or-later
//! scratch
use splice_arch_x86_64 as _;
use splice_core::{arch, diff, extract, unit::Unit};
fn main() {
    let a = arch::by_name("x86_64").unwrap();
    let args: Vec<String> = std::env::args().collect();
    let r = |p: &str| Unit::read(a, p, &std::fs::read(p).unwrap()).unwrap();
    let t = std::time::Instant::now();
    let (pre, post) = (r(&args[1]), r(&args[2]));
    println!("read {:?} spans {}", t.elapsed(), pre.spans.len());
    let t = std::time::Instant::now();
    let d = diff::diff_units(a, &pre, &post).unwrap();
    println!("diff {:?} functions {}", t.elapsed(), pre.functions().count());
    println!("{}", serde_json::to_string_pretty(&diff::report(a, &pre, &post, &d)).unwrap());
    let symvers = std::fs::read_to_string(
        "/work/scratch/x/usr/src/linux-headers-6.1.0-47-cloud-amd64/Module.symvers",
    )
    .unwrap();
    let exp: std::collections::HashSet<&str> =
        symvers.lines().filter_map(|l| l.split('\t').nth(1)).collect();
    if args.len() > 3 {
        let e = extract::extract(
            a,
            &extract::ExtractInput {
                pre: &pre,
                post: &post,
                diff: &d,
                unit_index: 0,
                exported: &|n| exp.contains(n),
                new_globals: &|_| false,
            },
            &mut Default::default(),
        )
        .unwrap();
        std::fs::write(&args[3], &e.object).unwrap();
        println!("{:#?}\n{:#?}", e.functions, e.symbols);
    }
}
