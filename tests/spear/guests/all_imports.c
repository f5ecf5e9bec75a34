/* Calls every hostcall of spear.h, so that the module imports all of them. Never run. */
#include "spear.h"

volatile int64_t sink;

int main(void) {
    char b[8] = "";
    uint32_t n = sizeof b;
    spear_event event;
    sink = spear_time_now_ms() + spear_wall_time_s() + spear_random_i64();
    spear_sleep_ms(0);
    sink = spear_log(0, b, n);
    sink = spear_cchat_create() + spear_cchat_write_msg(0, b, n, b, n) + spear_cchat_write_fn(0, 0, b, n);
    sink = spear_cchat_ctl(0, 0, b, &n) + spear_cchat_send(0, 0) + spear_cchat_recv(0, b, &n) + spear_cchat_close(0);
    sink = spear_rtasr_create() + spear_rtasr_ctl(0, 0, b, &n) + spear_rtasr_write(0, b, n);
    sink = spear_rtasr_read(0, b, &n) + spear_rtasr_close(0);
    sink = spear_mic_create() + spear_mic_ctl(0, 0, b, &n) + spear_mic_read(0, b, &n) + spear_mic_close(0);
    sink = spear_user_stream_open(0, 0) + spear_user_stream_read(0, b, &n) + spear_user_stream_write(0, b, n);
    sink = spear_user_stream_close(0) + spear_user_stream_ctl_open() + spear_user_stream_ctl_read(0, b, &n);
    sink = spear_epoll_create() + spear_epoll_ctl(0, 0, 0, 0) + spear_epoll_wait(0, &event, &n, 0);
    sink = spear_epoll_close(0) + spear_fd_ctl(0, 0, b, &n);
    /* extension 1.1 */
    sink = spear_abi_version() + spear_capabilities(b, &n) + spear_last_error(b, &n);
    sink = spear_cchat_write_parts(0, b, n, b, n);
    sink = spear_emb_create() + spear_emb_ctl(0, 0, b, &n) + spear_emb_write(0, b, n) + spear_emb_send(0, 0);
    sink = spear_emb_recv(0, b, &n) + spear_emb_close(0);
    sink = spear_img_create() + spear_img_ctl(0, 0, b, &n) + spear_img_write(0, b, n) + spear_img_send(0, 0);
    sink = spear_img_recv(0, b, &n) + spear_img_close(0);
    sink = spear_asr_create() + spear_asr_ctl(0, 0, b, &n) + spear_asr_write(0, b, n) + spear_asr_send(0, 0);
    sink = spear_asr_recv(0, b, &n) + spear_asr_close(0);
    sink = spear_tts_create() + spear_tts_ctl(0, 0, b, &n) + spear_tts_write(0, b, n) + spear_tts_send(0, 0);
    sink = spear_tts_recv(0, b, &n) + spear_tts_close(0);
    sink = spear_media_create(b, n) + spear_media_write(0, b, n) + spear_media_commit(0, b, &n);
    sink = spear_media_open(b, n) + spear_media_read(0, b, &n) + spear_media_close(0);
    return 0;
}
