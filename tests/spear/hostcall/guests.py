"""Small guests in WebAssembly text that several tests run as whole executions."""

from __future__ import annotations

import wasmtime

SPEAR_IMPORTS = """
 (import "spear" "log" (func $log (param i32 i32 i32) (result i32)))
 (import "spear" "sleep_ms" (func $sleep (param i32)))
 (import "spear" "time_now_ms" (func $now (result i64)))
 (import "spear" "cchat_create" (func $create (result i32)))
 (import "spear" "cchat_send" (func $send (param i32 i32) (result i32)))
 (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
 (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
"""


def module(body: str, *, imports: str = SPEAR_IMPORTS, memory: str = '(memory (export "memory") 2)') -> bytes:
    return bytes(wasmtime.wat2wasm(f"(module {imports} {memory} {body})"))


ENTRIES = module(
    """
 (data (i32.const 16) "hello")
 (data (i32.const 32) "\\10\\00\\00\\00\\05\\00\\00\\00")
 (global $ready (mut i32) (i32.const 0))
 (func $hello (drop (call $log (i32.const 2) (i32.const 16) (i32.const 5))))
 (func (export "_initialize") (global.set $ready (i32.const 41)))
 (func (export "_start") (call $hello))
 (func (export "ready") (result i32) (i32.add (global.get $ready) (i32.const 1)))
 (func (export "wide") (result i64) (i64.const -9000000000))
 (func (export "double") (result f64) (f64.const 1.5))
 (func (export "single") (result f32) (f32.const -0.25))
 (func (export "vector") (result v128) (v128.const i64x2 0 0))
 (func (export "pair") (result i32 i32) (i32.const 1) (i32.const 2))
 (func (export "takes") (param i32))
 (func (export "exit0") (call $exit (i32.const 0)))
 (func (export "exit7") (call $exit (i32.const 7)))
 (func (export "exit256") (call $exit (i32.const 256)))
 (func (export "prints")
   (drop (call $write (i32.const 1) (i32.const 32) (i32.const 1) (i32.const 64)))
   (drop (call $write (i32.const 2) (i32.const 32) (i32.const 1) (i32.const 64))))
 (func (export "traps") unreachable)
 (func (export "divides") (result i32) (i32.div_s (i32.const 1) (i32.const 0)))
 (func (export "outside") (result i32) (i32.load (i32.const 0x7fffffff)))
 (func $deep (export "deep") (call $deep))
 (func (export "spins") (loop $l (br $l)))
 (func (export "calls") (loop $l (drop (call $now)) (br $l)))
 (func (export "sleeps") (call $sleep (i32.const 3600000)))
 (func (export "naps") (loop $l (call $sleep (i32.const 1)) (br $l)))
 (func (export "sends") (drop (call $send (call $create) (i32.const 0))))
 (func (export "grows") (result i32) (memory.grow (i32.const 4095)))
 (func (export "grows_all") (result i32) (memory.grow (i32.const 4094)))
 (table $t (export "t") 1 funcref)
 (func (export "table_grows") (result i32) (table.grow $t (ref.null func) (i32.const 65536)))
 (func (export "table_grows_all") (result i32) (table.grow $t (ref.null func) (i32.const 65535)))
"""
)
