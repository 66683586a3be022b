// SPDX-License-Identifier: GPL-2.0-or-later
//! stub
use crate::unit::SpanId;
pub struct Changed {
    pub pre: SpanId,
    pub post: SpanId,
    pub pre_parts: Vec<SpanId>,
    pub post_parts: Vec<SpanId>,
    pub reasons: Vec<String>,
}
pub struct New {
    pub post: SpanId,
    pub post_parts: Vec<SpanId>,
    pub reasons: Vec<String>,
}
pub struct UnitDiff {
    pub pairs: Vec<Option<SpanId>>,
    pub changed: Vec<Changed>,
    pub new: Vec<New>,
}
