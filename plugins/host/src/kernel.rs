// SPDX-License-Identifier: GPL-2.0-or-later
//! The host's [`KernelView`], lent to a plugin for one call. A panic of the view must not cross
//! the plugin: it is kept, and goes on where the call came from.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use abi_stable::sabi_types::RRef;
use abi_stable::std_types::{RSliceMut, RStr, RVec};
use splice_core::arch::KernelView;
use splice_plugin_abi::v1::{HandleV1, KernelV1};

struct Lent<'a> {
    view: &'a dyn KernelView,
    panic: RefCell<Option<Box<dyn Any + Send>>>,
}

/// Calls `f` with a view that a plugin can use.
pub(crate) fn lend<R>(view: &dyn KernelView, f: impl FnOnce(&KernelV1<'_>) -> R) -> R {
    let lent = Lent { view, panic: RefCell::new(None) };
    let pointer = (&raw const lent).cast::<()>();
    let kernel = KernelV1 {
        // SAFETY: it points at `lent`, which lives until after the call.
        this: HandleV1(unsafe { RRef::from_raw(pointer) }),
        addresses,
        is_function,
        is_text,
        read,
    };
    let result = f(&kernel);
    if let Some(panic) = lent.panic.take() {
        resume_unwind(panic);
    }
    result
}

/// Asks the view; after a panic nothing is known any more.
fn ask<R: Default>(handle: HandleV1<'_>, question: impl FnOnce(&dyn KernelView) -> R) -> R {
    let pointer = handle.0.as_ptr().cast::<Lent<'_>>();
    // SAFETY: handles are made by `lend` alone, and are valid during its call.
    let lent = unsafe { &*pointer };
    match catch_unwind(AssertUnwindSafe(|| question(lent.view))) {
        Ok(answer) => answer,
        Err(panic) => {
            lent.panic.replace(Some(panic));
            R::default()
        }
    }
}

extern "C" fn addresses(handle: HandleV1<'_>, name: RStr<'_>) -> RVec<u64> {
    ask(handle, |view| view.addresses(name.as_str())).into()
}

extern "C" fn is_function(handle: HandleV1<'_>, address: u64) -> bool {
    ask(handle, |view| view.is_function(address))
}

extern "C" fn is_text(handle: HandleV1<'_>, address: u64) -> bool {
    ask(handle, |view| view.is_text(address))
}

extern "C" fn read(handle: HandleV1<'_>, address: u64, mut buf: RSliceMut<'_, u8>) -> bool {
    ask(handle, |view| view.read(address, buf.as_mut_slice()))
}
