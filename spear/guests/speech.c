/* Text to speech and back: has a sentence said, and has the sound transcribed. The sound stays in the host's media
 * store: only the reference goes through the guest. */
#include "spear.h"

#define SENTENCE "one two three four five"

/* The reference to the sound: the object behind "audio":, in memory to be freed. */
static char *reference(const char *body) {
    const char *from = strstr(body, "\"audio\":{"), *end;
    char *text;
    if (from == NULL) return NULL;
    from += 8;
    end = strchr(from, '}');
    if (end == NULL) return NULL;
    text = (char *)malloc((size_t)(end - from) + 2);
    if (text == NULL) return NULL;
    memcpy(text, from, (size_t)(end - from) + 1);
    text[end - from + 1] = '\0';
    return text;
}

int main(void) {
    char *said = NULL, *heard = NULL, *sound, *text;
    int32_t tts = spear_tts_create(), asr = spear_asr_create(), response;
    if (tts < 0 || asr < 0) return 1;
    spear_tts_write(tts, SENTENCE, (uint32_t)strlen(SENTENCE));
    response = spear_tts_send(tts, 0);
    if (response < 0 || spear_tts_body(response, &said) < 0) return 1;
    if (spear_is_error(said)) {
        fprintf(stderr, "%s\n", said);
        return 1;
    }
    sound = reference(said);
    if (sound == NULL || spear_op_set(spear_asr_ctl, asr, "audio", sound) < 0) return 1;
    response = spear_asr_send(asr, 0);
    if (response < 0 || spear_asr_body(response, &heard) < 0) return 1;
    if (spear_is_error(heard)) {
        fprintf(stderr, "%s\n", heard);
        return 1;
    }
    text = spear_json_text(heard, "text");
    printf("said:  %s\nheard: %s\n", SENTENCE, text == NULL ? "" : text);
    free(text);
    free(heard);
    free(sound);
    free(said);
    return 0;
}
