/* spear.h: the guest's side of the Spear ABI 1.0 and its extension 1.1, for C99 and wasm32-wasi.
 *
 * One file, no other dependency than libc's <stdint.h>, <stdlib.h>, <string.h> and <stdio.h>. It has three parts:
 *   1. numbers    errno, commands, flags, limits (SPEAR_...)
 *   2. hostcalls  the imports of the module "spear", each with the prefix spear_: the 32 of 1.0, then those of 1.1
 *   3. helpers    small functions that follow the conventions for you (reading with a growing buffer, JSON text)
 *
 * A module imports only what it calls, so a guest that uses nothing of 1.1 runs on a host of 1.0, too.
 *
 * Every hostcall returns >= 0 for success and a negated number of part 1 for a failure. A guest has
 * no arguments, no environment and an empty standard input. Any hostcall ends the guest when the host wants it to end.
 */
#ifndef SPEAR_H
#define SPEAR_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef __wasm32__
#error "spear.h is for guests: compile with --target=wasm32-wasi"
#endif

/* ---------------------------------------------------------------- 1. numbers */

/* Errors, frozen: neither your libc's errno nor WASI's. A call returns them negated: -SPEAR_EAGAIN. */
enum {
    SPEAR_OK = 0,
    SPEAR_EPERM = 1,          /* never returned */
    SPEAR_ENOENT = 2,         /* never returned */
    SPEAR_EIO = 5,            /* internal; a failed session; a bad chat parameter */
    SPEAR_EBADF = 9,          /* fd unknown, closed, or of the wrong kind */
    SPEAR_EAGAIN = 11,        /* nothing to read; queue full */
    SPEAR_ENOMEM = 12,        /* a cap on a count or a total is reached */
    SPEAR_EACCES = 13,        /* forbidden */
    SPEAR_EFAULT = 14,        /* a range outside memory */
    SPEAR_EINVAL = 22,        /* bad value, bad command, one argument too large */
    SPEAR_ENOSPC = 28,        /* output buffer too small; the size needed is in the length */
    SPEAR_EPIPE = 32,         /* session closed */
    SPEAR_ENOSYS = 38,        /* this host has the family switched off */
    SPEAR_ECONNRESET = 104,   /* never returned */
    SPEAR_ENOTCONN = 107,     /* not connected */
    SPEAR_ETIMEDOUT = 110     /* never returned */
};

/* spear_log levels; any other number is info. */
enum { SPEAR_LOG_TRACE = 0, SPEAR_LOG_DEBUG = 1, SPEAR_LOG_INFO = 2, SPEAR_LOG_WARN = 3, SPEAR_LOG_ERROR = 4 };

/* spear_cchat_ctl commands and spear_cchat_send flags */
enum { SPEAR_CCHAT_SET_PARAM = 1, SPEAR_CCHAT_GET_METRICS = 2 };
enum { SPEAR_CCHAT_ENABLE_METRICS = 1, SPEAR_CCHAT_AUTO_TOOL_CALL = 2 };
enum { SPEAR_CCHAT_STREAM = 4, SPEAR_CCHAT_ASYNC = 8 }; /* of 1.1: return at once; both together are STREAM */

/* spear_rtasr_ctl, spear_mic_ctl */
enum {
    SPEAR_RTASR_SET_PARAM = 1,
    SPEAR_RTASR_CONNECT = 2,
    SPEAR_RTASR_GET_STATUS = 3,
    SPEAR_RTASR_SEND_EVENT = 4,
    SPEAR_RTASR_FLUSH = 5,
    SPEAR_RTASR_CLEAR = 6,
    SPEAR_RTASR_SET_AUTOFLUSH = 7,
    SPEAR_RTASR_GET_AUTOFLUSH = 8
};
enum { SPEAR_MIC_SET_PARAM = 1, SPEAR_MIC_GET_STATUS = 2 };

/* User streams: directions, and the kinds of control events. */
enum { SPEAR_STREAM_INBOUND = 1, SPEAR_STREAM_OUTBOUND = 2, SPEAR_STREAM_BIDIRECTIONAL = 3 };
enum { SPEAR_STREAM_CONNECTED = 1, SPEAR_STREAM_SESSION_CLOSED = 2 };

/* epoll operations and readiness; ERR and HUP are reported only when asked for. */
enum { SPEAR_EPOLL_CTL_ADD = 1, SPEAR_EPOLL_CTL_MOD = 2, SPEAR_EPOLL_CTL_DEL = 3 };
enum { SPEAR_EPOLLIN = 0x001, SPEAR_EPOLLOUT = 0x004, SPEAR_EPOLLERR = 0x008, SPEAR_EPOLLHUP = 0x010 };

/* spear_fd_ctl commands */
enum {
    SPEAR_FD_SET_FLAGS = 1,
    SPEAR_FD_GET_FLAGS = 2,
    SPEAR_FD_GET_KIND = 3,
    SPEAR_FD_GET_STATUS = 4,
    SPEAR_FD_GET_METRICS = 5
};

/* Families of operations (extension 1.1): spear_emb_, spear_img_, spear_asr_, spear_tts_. Commands, and flags of send;
 * SPEAR_OP_STREAM is for asr and tts. */
enum { SPEAR_OP_SET_PARAM = 1, SPEAR_OP_GET_METRICS = 2, SPEAR_OP_GET_STATUS = 3 };
enum { SPEAR_OP_METRICS = 1, SPEAR_OP_STREAM = 4, SPEAR_OP_ASYNC = 8 };
enum {
    SPEAR_MAX_EMB_INPUTS = 2048,
    SPEAR_MAX_EMB_INPUT_BYTES = 1048576,
    SPEAR_MAX_PROMPT_BYTES = 131072,
    SPEAR_MAX_TTS_BYTES = 262144,
    SPEAR_MAX_WRITE_BYTES = 4194304, /* of one spear_asr_write or spear_media_write */
    SPEAR_MAX_READ_BYTES = 1048576   /* that one spear_media_read gives */
};

/* Limits that a guest can rely on. */
enum {
    SPEAR_ABI_1_1 = 65537, /* what spear_abi_version gives */
    SPEAR_MAX_PARTS = 64,
    SPEAR_EVENTS_QUEUED = 1024, /* of one stream; the host waits beyond */
    SPEAR_FIRST_FD = 1000,
    SPEAR_MAX_LOG_BYTES = 16384,
    SPEAR_MAX_STREAM_FRAME_BYTES = 262144,
    SPEAR_READ_BYTES = 65536,       /* how much to offer first when reading */
    SPEAR_READ_STATUS_BYTES = 8192, /* the same for a microphone's status */
    SPEAR_READ_RETRIES = 3,
    SPEAR_TOOL_OUTPUT_BYTES = 65536 /* default of max_tool_output_bytes */
};

typedef struct spear_event {
    int32_t fd;
    int32_t events;
} spear_event;

typedef struct spear_stream_event {
    uint32_t stream_id; /* 0 with SPEAR_STREAM_SESSION_CLOSED */
    uint32_t kind;
} spear_stream_event;

/* A tool that the host calls while spear_cchat_send runs with SPEAR_CCHAT_AUTO_TOOL_CALL.
 * args: JSON text as the model wrote it, followed by a NUL that args_len does not count.
 * *out_len: capacity on entry, length of the UTF-8 output on return.
 * Returns 0; -SPEAR_ENOSPC with the size needed in *out_len to be called once more; anything else is a failure, of
 * which the model is told. A tool may make hostcalls. */
typedef int32_t (*spear_tool)(const char *args, uint32_t args_len, char *out, uint32_t *out_len);

/* ---------------------------------------------------------------- 2. hostcalls */

#define SPEAR_IMPORT(name) __attribute__((import_module("spear"), import_name(name))) extern

/* OUTBUF below: *out_len holds the capacity on entry. Too small: -SPEAR_ENOSPC, and the size needed is stored there.
 * Otherwise the data is copied, its size stored and returned. */

/* Time, random numbers, sleep, log. None of the first three fails. */
SPEAR_IMPORT("time_now_ms") int64_t spear_time_now_ms(void);
SPEAR_IMPORT("wall_time_s") int64_t spear_wall_time_s(void);
SPEAR_IMPORT("random_i64") int64_t spear_random_i64(void);
SPEAR_IMPORT("sleep_ms") void spear_sleep_ms(int32_t ms);
SPEAR_IMPORT("log") int32_t spear_log(int32_t level, const char *text, uint32_t len);

/* Chat. create -> session fd; send blocks and -> response fd; recv is OUTBUF and does not consume.
 * With SPEAR_CCHAT_ASYNC send returns at once, and recv is -SPEAR_EAGAIN until the body is there. With
 * SPEAR_CCHAT_STREAM recv takes one event at a time, -SPEAR_EAGAIN when there is none, 0 bytes after the last. */
SPEAR_IMPORT("cchat_create") int32_t spear_cchat_create(void);
SPEAR_IMPORT("cchat_write_msg")
int32_t spear_cchat_write_msg(int32_t fd, const char *role, uint32_t role_len, const char *content, uint32_t content_len);
SPEAR_IMPORT("cchat_write_fn")
int32_t spear_cchat_write_fn(int32_t fd, int32_t table_index, const char *json, uint32_t json_len);
SPEAR_IMPORT("cchat_ctl") int32_t spear_cchat_ctl(int32_t fd, int32_t cmd, void *arg, uint32_t *arg_len);
SPEAR_IMPORT("cchat_send") int32_t spear_cchat_send(int32_t fd, int32_t flags);
SPEAR_IMPORT("cchat_recv") int32_t spear_cchat_recv(int32_t response_fd, void *out, uint32_t *out_len);
SPEAR_IMPORT("cchat_close") int32_t spear_cchat_close(int32_t fd);

/* Realtime speech recognition. read is OUTBUF, one event. */
SPEAR_IMPORT("rtasr_create") int32_t spear_rtasr_create(void);
SPEAR_IMPORT("rtasr_ctl") int32_t spear_rtasr_ctl(int32_t fd, int32_t cmd, void *arg, uint32_t *arg_len);
SPEAR_IMPORT("rtasr_write") int32_t spear_rtasr_write(int32_t fd, const void *audio, uint32_t len);
SPEAR_IMPORT("rtasr_read") int32_t spear_rtasr_read(int32_t fd, void *out, uint32_t *out_len);
SPEAR_IMPORT("rtasr_close") int32_t spear_rtasr_close(int32_t fd);

/* Microphone. read is OUTBUF, one frame. */
SPEAR_IMPORT("mic_create") int32_t spear_mic_create(void);
SPEAR_IMPORT("mic_ctl") int32_t spear_mic_ctl(int32_t fd, int32_t cmd, void *arg, uint32_t *arg_len);
SPEAR_IMPORT("mic_read") int32_t spear_mic_read(int32_t fd, void *out, uint32_t *out_len);
SPEAR_IMPORT("mic_close") int32_t spear_mic_close(int32_t fd);

/* Streams between the guest and a user. read is OUTBUF: one frame, or one spear_stream_event. */
SPEAR_IMPORT("user_stream_open") int32_t spear_user_stream_open(int32_t stream_id, int32_t direction);
SPEAR_IMPORT("user_stream_read") int32_t spear_user_stream_read(int32_t fd, void *out, uint32_t *out_len);
SPEAR_IMPORT("user_stream_write") int32_t spear_user_stream_write(int32_t fd, const void *frame, uint32_t len);
SPEAR_IMPORT("user_stream_close") int32_t spear_user_stream_close(int32_t fd);
SPEAR_IMPORT("user_stream_ctl_open") int32_t spear_user_stream_ctl_open(void);
SPEAR_IMPORT("user_stream_ctl_read") int32_t spear_user_stream_ctl_read(int32_t fd, void *out, uint32_t *out_len);

/* Waiting. wait: *out_len is bytes, 8 per event; returns the number of events; timeout_ms < 0 waits for ever. */
SPEAR_IMPORT("spear_epoll_create") int32_t spear_epoll_create(void);
SPEAR_IMPORT("spear_epoll_ctl") int32_t spear_epoll_ctl(int32_t epfd, int32_t op, int32_t fd, int32_t events);
SPEAR_IMPORT("spear_epoll_wait")
int32_t spear_epoll_wait(int32_t epfd, spear_event *out, uint32_t *out_len, int32_t timeout_ms);
SPEAR_IMPORT("spear_epoll_close") int32_t spear_epoll_close(int32_t epfd);
SPEAR_IMPORT("spear_fd_ctl") int32_t spear_fd_ctl(int32_t fd, int32_t cmd, void *arg, uint32_t *arg_len);

/* --- extension 1.1: a module that imports one of these needs a host of version 1.1.
 *
 * The host. SPEAR_ABI_1_1 or higher. */
SPEAR_IMPORT("spear_abi_version") int32_t spear_abi_version(void);
/* Both OUTBUF, JSON: what this guest may ask for and its limits; and its latest failure, {} if there was none. */
SPEAR_IMPORT("spear_capabilities") int32_t spear_capabilities(void *out, uint32_t *out_len);
SPEAR_IMPORT("spear_last_error") int32_t spear_last_error(void *out, uint32_t *out_len);
/* A message of 1 to 64 parts, a JSON array: {"type":"text","text":...}, {"type":"image","media":<reference>} and
 * {"type":"audio","media":<reference>}. */
SPEAR_IMPORT("cchat_write_parts")
int32_t spear_cchat_write_parts(int32_t fd, const char *role, uint32_t role_len, const char *json, uint32_t json_len);

/* Embeddings, images, speech to text, text to speech: five calls for each. create -> request fd; ctl sets parameters;
 * write appends (emb: one input per call) and returns its length; send -> response fd, blocking without
 * SPEAR_OP_STREAM and SPEAR_OP_ASYNC; recv is OUTBUF: the body, or with SPEAR_OP_STREAM one event, then 0 bytes. */
SPEAR_IMPORT("emb_create") int32_t spear_emb_create(void);
SPEAR_IMPORT("emb_ctl") int32_t spear_emb_ctl(int32_t fd, int32_t cmd, void *arg, uint32_t *arg_len);
SPEAR_IMPORT("emb_write") int32_t spear_emb_write(int32_t fd, const void *data, uint32_t len);
SPEAR_IMPORT("emb_send") int32_t spear_emb_send(int32_t fd, int32_t flags);
SPEAR_IMPORT("emb_recv") int32_t spear_emb_recv(int32_t response_fd, void *out, uint32_t *out_len);
SPEAR_IMPORT("emb_close") int32_t spear_emb_close(int32_t fd);
SPEAR_IMPORT("img_create") int32_t spear_img_create(void);
SPEAR_IMPORT("img_ctl") int32_t spear_img_ctl(int32_t fd, int32_t cmd, void *arg, uint32_t *arg_len);
SPEAR_IMPORT("img_write") int32_t spear_img_write(int32_t fd, const void *data, uint32_t len);
SPEAR_IMPORT("img_send") int32_t spear_img_send(int32_t fd, int32_t flags);
SPEAR_IMPORT("img_recv") int32_t spear_img_recv(int32_t response_fd, void *out, uint32_t *out_len);
SPEAR_IMPORT("img_close") int32_t spear_img_close(int32_t fd);
SPEAR_IMPORT("asr_create") int32_t spear_asr_create(void);
SPEAR_IMPORT("asr_ctl") int32_t spear_asr_ctl(int32_t fd, int32_t cmd, void *arg, uint32_t *arg_len);
SPEAR_IMPORT("asr_write") int32_t spear_asr_write(int32_t fd, const void *data, uint32_t len);
SPEAR_IMPORT("asr_send") int32_t spear_asr_send(int32_t fd, int32_t flags);
SPEAR_IMPORT("asr_recv") int32_t spear_asr_recv(int32_t response_fd, void *out, uint32_t *out_len);
SPEAR_IMPORT("asr_close") int32_t spear_asr_close(int32_t fd);
SPEAR_IMPORT("tts_create") int32_t spear_tts_create(void);
SPEAR_IMPORT("tts_ctl") int32_t spear_tts_ctl(int32_t fd, int32_t cmd, void *arg, uint32_t *arg_len);
SPEAR_IMPORT("tts_write") int32_t spear_tts_write(int32_t fd, const void *data, uint32_t len);
SPEAR_IMPORT("tts_send") int32_t spear_tts_send(int32_t fd, int32_t flags);
SPEAR_IMPORT("tts_recv") int32_t spear_tts_recv(int32_t response_fd, void *out, uint32_t *out_len);
SPEAR_IMPORT("tts_close") int32_t spear_tts_close(int32_t fd);

/* Media. create -> an fd to write to, commit seals it and is OUTBUF (a reference), open -> an fd to read from. read is
 * not OUTBUF: it gives the next bytes, as many as fit, and 0 at the end. */
SPEAR_IMPORT("media_create") int32_t spear_media_create(const char *mime, uint32_t mime_len);
SPEAR_IMPORT("media_write") int32_t spear_media_write(int32_t fd, const void *data, uint32_t len);
SPEAR_IMPORT("media_commit") int32_t spear_media_commit(int32_t fd, void *out, uint32_t *out_len);
SPEAR_IMPORT("media_open") int32_t spear_media_open(const char *uri, uint32_t uri_len);
SPEAR_IMPORT("media_read") int32_t spear_media_read(int32_t fd, void *out, uint32_t *out_len);
SPEAR_IMPORT("media_close") int32_t spear_media_close(int32_t fd);

/* ---------------------------------------------------------------- 3. helpers */

static inline int32_t spear_log_text(int32_t level, const char *text) {
    size_t len = strlen(text);
    return spear_log(level, text, (uint32_t)(len > SPEAR_MAX_LOG_BYTES ? SPEAR_MAX_LOG_BYTES : len));
}

/* Waits for at most `max` events; returns how many, 0 when the time is over. */
static inline int32_t spear_wait(int32_t epfd, spear_event *events, uint32_t max, int32_t timeout_ms) {
    uint32_t len = max * (uint32_t)sizeof *events;
    return spear_epoll_wait(epfd, events, &len, timeout_ms);
}

/* Defines NAME(fd, &data): reads by CALL(buffer, &length) into memory of its own, starting with START bytes and asking
 * again with the size that the host reported, SPEAR_READ_RETRIES times at most. Returns the length, and in *data a
 * NUL-terminated block that you free(); or a negative error, and *data is NULL. */
#define SPEAR_DEFINE_READER(NAME, START, CALL)                                \
    static inline int32_t NAME(int32_t fd, char **data) {                     \
        uint32_t capacity = (START);                                          \
        int32_t result = -SPEAR_ENOSPC;                                       \
        *data = NULL;                                                         \
        for (int tries = 0; tries <= SPEAR_READ_RETRIES; tries++) {           \
            uint32_t length = capacity;                                       \
            char *buffer = (char *)malloc((size_t)capacity + 1);              \
            if (buffer == NULL) return -SPEAR_ENOMEM;                         \
            result = CALL;                                                    \
            if (result >= 0) {                                                \
                buffer[result] = '\0';                                        \
                *data = buffer;                                               \
                return result;                                                \
            }                                                                 \
            free(buffer);                                                     \
            if (result != -SPEAR_ENOSPC || length <= capacity) return result; \
            capacity = length;                                                \
        }                                                                     \
        return result;                                                        \
    }

SPEAR_DEFINE_READER(spear_cchat_body, SPEAR_READ_BYTES, spear_cchat_recv(fd, buffer, &length))
SPEAR_DEFINE_READER(spear_cchat_event, SPEAR_READ_BYTES, spear_cchat_recv(fd, buffer, &length)) /* "" is the end */
SPEAR_DEFINE_READER(spear_cchat_metrics, SPEAR_READ_BYTES,
                    spear_cchat_ctl(fd, SPEAR_CCHAT_GET_METRICS, buffer, &length))
SPEAR_DEFINE_READER(spear_rtasr_event, SPEAR_READ_BYTES, spear_rtasr_read(fd, buffer, &length))
SPEAR_DEFINE_READER(spear_rtasr_status, SPEAR_READ_BYTES,
                    spear_rtasr_ctl(fd, SPEAR_RTASR_GET_STATUS, buffer, &length))
SPEAR_DEFINE_READER(spear_mic_frame, SPEAR_READ_BYTES, spear_mic_read(fd, buffer, &length))
SPEAR_DEFINE_READER(spear_mic_status, SPEAR_READ_STATUS_BYTES,
                    spear_mic_ctl(fd, SPEAR_MIC_GET_STATUS, buffer, &length))
SPEAR_DEFINE_READER(spear_stream_frame, SPEAR_READ_BYTES, spear_user_stream_read(fd, buffer, &length))
SPEAR_DEFINE_READER(spear_fd_status, SPEAR_READ_STATUS_BYTES, spear_fd_ctl(fd, SPEAR_FD_GET_STATUS, buffer, &length))

/* --- chat, in the short form */

static inline int32_t spear_cchat_say_parts(int32_t fd, const char *role, const char *json) {
    return spear_cchat_write_parts(fd, role, (uint32_t)strlen(role), json, (uint32_t)strlen(json));
}

static inline int32_t spear_cchat_say(int32_t fd, const char *role, const char *content) {
    return spear_cchat_write_msg(fd, role, (uint32_t)strlen(role), content, (uint32_t)strlen(content));
}

/* Registers a tool with its JSON schema ({"type":"function","function":{...}}); link with --export-table. */
static inline int32_t spear_cchat_tool(int32_t fd, spear_tool tool, const char *json) {
    return spear_cchat_write_fn(fd, (int32_t)(intptr_t)tool, json, (uint32_t)strlen(json));
}

/* Sets a parameter to a JSON value given as text: spear_cchat_set(fd, "temperature", "0.2"). The key goes in as it is. */
static inline int32_t spear_cchat_set(int32_t fd, const char *key, const char *json_value) {
    size_t size = strlen(key) + strlen(json_value) + 24;
    char *text = (char *)malloc(size);
    uint32_t len;
    int32_t result;
    if (text == NULL) return -SPEAR_ENOMEM;
    len = (uint32_t)snprintf(text, size, "{\"key\":\"%s\",\"value\":%s}", key, json_value);
    result = spear_cchat_ctl(fd, SPEAR_CCHAT_SET_PARAM, text, &len);
    free(text);
    return result;
}

static inline int32_t spear_cchat_set_int(int32_t fd, const char *key, int64_t value) {
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return spear_cchat_set(fd, key, text);
}

/* `text` as a JSON string with its quotes, in memory that you free(); NULL when there is none. */
static inline char *spear_json_quote(const char *text) {
    static const char hex[] = "0123456789abcdef";
    char *quoted = (char *)malloc(strlen(text) * 6 + 3);
    char *at = quoted;
    if (quoted == NULL) return NULL;
    *at++ = '"';
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            *at++ = '\\';
            *at++ = (char)c;
        } else if (c < 0x20) {
            memcpy(at, "\\u00", 4);
            at[4] = hex[c >> 4];
            at[5] = hex[c & 15];
            at += 6;
        } else {
            *at++ = (char)c;
        }
    }
    *at++ = '"';
    *at = '\0';
    return quoted;
}

static inline int32_t spear_cchat_set_text(int32_t fd, const char *key, const char *value) {
    char *quoted = spear_json_quote(value);
    int32_t result;
    if (quoted == NULL) return -SPEAR_ENOMEM;
    result = spear_cchat_set(fd, key, quoted);
    free(quoted);
    return result;
}

/* Memory in which the host places a tool's arguments and output. Keep it until the last send is over. */
static inline int32_t spear_cchat_set_arena(int32_t fd, void *arena, uint32_t len) {
    int32_t result = spear_cchat_set_int(fd, "tool_arena_ptr", (int64_t)(uintptr_t)arena);
    return result < 0 ? result : spear_cchat_set_int(fd, "tool_arena_len", len);
}

/* Whether an event of a stream is of that type: the type is always its last member. */
static inline int spear_event_is(const char *event, const char *type) {
    char end[64];
    size_t length = strlen(event), wanted = (size_t)snprintf(end, sizeof end, "\"type\":\"%s\"}", type);
    return wanted < sizeof end && length >= wanted && strcmp(event + length - wanted, end) == 0;
}

/* What the host offers, and the latest failure: NUL-terminated JSON that you free(), NULL when there is no memory. */
#define SPEAR_DEFINE_TELLER(NAME, CALL)                             \
    static inline char *NAME(void) {                                \
        uint32_t capacity = SPEAR_READ_STATUS_BYTES;                \
        for (int tries = 0; tries <= SPEAR_READ_RETRIES; tries++) { \
            uint32_t length = capacity;                             \
            char *buffer = (char *)malloc((size_t)capacity + 1);    \
            int32_t result;                                         \
            if (buffer == NULL) return NULL;                        \
            result = CALL(buffer, &length);                         \
            if (result >= 0) {                                      \
                buffer[result] = '\0';                              \
                return buffer;                                      \
            }                                                       \
            free(buffer);                                           \
            capacity = length;                                      \
        }                                                           \
        return NULL;                                                \
    }

SPEAR_DEFINE_TELLER(spear_capabilities_text, spear_capabilities)
SPEAR_DEFINE_TELLER(spear_last_error_text, spear_last_error)

/* A body that is an error ({"error":{"message":...}}): a send does not fail, its body tells. */
static inline int spear_is_error(const char *body) { return strncmp(body, "{\"error\":", 9) == 0; }

/* --- families and media, in the short form */

SPEAR_DEFINE_READER(spear_emb_body, SPEAR_READ_BYTES, spear_emb_recv(fd, buffer, &length))
SPEAR_DEFINE_READER(spear_img_body, SPEAR_READ_BYTES, spear_img_recv(fd, buffer, &length))
SPEAR_DEFINE_READER(spear_asr_body, SPEAR_READ_BYTES, spear_asr_recv(fd, buffer, &length))
SPEAR_DEFINE_READER(spear_tts_body, SPEAR_READ_BYTES, spear_tts_recv(fd, buffer, &length))
SPEAR_DEFINE_READER(spear_media_ref, SPEAR_READ_STATUS_BYTES, spear_media_commit(fd, buffer, &length))

/* As spear_cchat_set, for a request of any family, whose ctl is given: spear_op_set(spear_img_ctl, fd, "n", "2"). */
typedef int32_t (*spear_ctl)(int32_t fd, int32_t cmd, void *arg, uint32_t *arg_len);

static inline int32_t spear_op_set(spear_ctl ctl, int32_t fd, const char *key, const char *json_value) {
    size_t size = strlen(key) + strlen(json_value) + 24;
    char *text = (char *)malloc(size);
    uint32_t len;
    int32_t result;
    if (text == NULL) return -SPEAR_ENOMEM;
    len = (uint32_t)snprintf(text, size, "{\"key\":\"%s\",\"value\":%s}", key, json_value);
    result = ctl(fd, SPEAR_OP_SET_PARAM, text, &len);
    free(text);
    return result;
}

/* --- reading JSON from the host: it is compact, keys sorted, so that a key is found by its text */

static inline int spear_hex4_(const char *at) {
    int value = 0;
    for (int n = 0; n < 4; n++) {
        char c = at[n];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

static inline char *spear_utf8_(char *to, uint32_t code) {
    if (code < 0x80) {
        *to++ = (char)code;
        return to;
    }
    if (code < 0x800) {
        *to++ = (char)(0xc0 | code >> 6);
    } else {
        if (code < 0x10000) {
            *to++ = (char)(0xe0 | code >> 12);
        } else {
            *to++ = (char)(0xf0 | code >> 18);
            *to++ = (char)(0x80 | (code >> 12 & 0x3f));
        }
        *to++ = (char)(0x80 | (code >> 6 & 0x3f));
    }
    *to++ = (char)(0x80 | (code & 0x3f));
    return to;
}

/* The first string member `key` of `json`, anywhere in it, unescaped, in memory that you free(); NULL when there is
 * none (the member is absent, or null, or no string). */
static inline char *spear_json_text(const char *json, const char *key) {
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    size_t pattern_size = strlen(key) + 5;
    char *pattern = (char *)malloc(pattern_size), *text, *to;
    const char *from;
    if (pattern == NULL) return NULL;
    snprintf(pattern, pattern_size, "\"%s\":\"", key);
    from = strstr(json, pattern);
    if (from != NULL) from += strlen(pattern);
    free(pattern);
    if (from == NULL) return NULL;
    to = text = (char *)malloc(strlen(from) + 1);
    if (text == NULL) return NULL;
    while (*from != '"' && *from != '\0') {
        const char *escape;
        if (*from != '\\') {
            *to++ = *from++;
        } else if (from[1] == 'u') {
            int high = spear_hex4_(from + 2), low = -1;
            if (high < 0) break;
            from += 6;
            if (high >= 0xd800 && high < 0xdc00 && from[0] == '\\' && from[1] == 'u') low = spear_hex4_(from + 2);
            if (low >= 0xdc00 && low < 0xe000) {
                from += 6;
                to = spear_utf8_(to, 0x10000 + ((uint32_t)(high - 0xd800) << 10) + (uint32_t)(low - 0xdc00));
            } else {
                to = spear_utf8_(to, high >= 0xd800 && high < 0xe000 ? 0xfffd : (uint32_t)high);
            }
        } else {
            escape = from[1] == '\0' ? NULL : strchr(escapes, from[1]);
            if (escape == NULL) break;
            *to++ = meanings[escape - escapes];
            from += 2;
        }
    }
    if (*from != '"') { /* no JSON string after all */
        free(text);
        return NULL;
    }
    *to = '\0';
    return text;
}

/* The first integer member `key` of `json`, blanks after the colon allowed: models write JSON as they like.
 * Returns 0 and stores it, or -SPEAR_EINVAL. */
static inline int32_t spear_json_int(const char *json, const char *key, int64_t *value) {
    size_t pattern_size = strlen(key) + 3;
    char *pattern = (char *)malloc(pattern_size), *end;
    const char *from;
    if (pattern == NULL) return -SPEAR_ENOMEM;
    snprintf(pattern, pattern_size, "\"%s\"", key);
    from = strstr(json, pattern);
    if (from != NULL) from += strlen(pattern);
    free(pattern);
    if (from == NULL) return -SPEAR_EINVAL;
    from += strspn(from, " \t\r\n");
    if (*from++ != ':') return -SPEAR_EINVAL;
    *value = strtoll(from, &end, 10);
    return end == from ? -SPEAR_EINVAL : 0;
}

#endif /* SPEAR_H */
