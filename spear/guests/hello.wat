;; A guest without a compiler: one line into the host's log.
(module
  (import "spear" "log" (func $log (param i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "hello from text")
  (func (export "_start")
    (drop (call $log (i32.const 2) (i32.const 16) (i32.const 15)))))
