#include "fuzz_mutate.h"

#include <stdlib.h>
#include <string.h>

enum { SOF0 = 0xC0, DHT = 0xC4, SOF15 = 0xCF, RST0 = 0xD0, EOI = 0xD9, SOS = 0xDA, DQT = 0xDB };
enum { DNL = 0xDC, DRI = 0xDD, APP0 = 0xE0, APP14 = 0xEE, COM = 0xFE, DATA = 0 };

#define MAX_PARTS 128
#define MAX_TAIL 9000 /* bytes behind the end: with so many libjpeg keeps to its fast path */

/* A segment with its marker, or the data of a scan, or what follows the end (DATA too). */
struct part {
    int marker;
    uint8_t *bytes;
    size_t count;
};

struct parts {
    struct part list[MAX_PARTS];
    int count;
};

static uint64_t state = 1;

void fuzz_seed(uint64_t seed) { state = 88172645463325252ull + seed * 2654435761u; }

uint32_t fuzz_draw(uint32_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 20) % below);
}

static uint8_t any_byte(void) {
    static const uint8_t telling[] = {0, 1, 2, 3, 4, 7, 8, 15, 16, 63, 64, 127, 128, 254, 255};
    return fuzz_draw(2) ? telling[fuzz_draw(sizeof telling)] : (uint8_t)fuzz_draw(256);
}

static struct part make_part(int marker, const uint8_t *bytes, size_t count) {
    struct part part = {marker, malloc(count + 1), count};
    memcpy(part.bytes, bytes, count);
    return part;
}

static void append(struct parts *parts, int marker, const uint8_t *bytes, size_t count) {
    if (parts->count < MAX_PARTS)
        parts->list[parts->count++] = make_part(marker, bytes, count);
}

/* Where the data of a scan ends: at a marker that is no restart marker. */
static size_t data_end(struct file file, size_t at) {
    while (at + 1 < file.count &&
           (file.bytes[at] != 0xFF || file.bytes[at + 1] == 0 || file.bytes[at + 1] == 0xFF ||
            (file.bytes[at + 1] >= RST0 && file.bytes[at + 1] < RST0 + 8)))
        at++;
    return at + 1 < file.count ? at : file.count;
}

static struct parts split(struct file file) {
    struct parts parts = {.count = 0};
    size_t at = 2;
    while (at + 4 <= file.count && file.bytes[at] == 0xFF && file.bytes[at + 1] != EOI) {
        int marker = file.bytes[at + 1];
        size_t end = at + 2 + (size_t)(file.bytes[at + 2] << 8 | file.bytes[at + 3]);
        end = end < file.count ? end : file.count;
        append(&parts, marker, file.bytes + at, end - at);
        at = end;
        if (marker == SOS) {
            end = data_end(file, at);
            append(&parts, DATA, file.bytes + at, end - at);
            at = end;
        }
    }
    append(&parts, at + 2 == file.count ? EOI : DATA, file.bytes + at, file.count - at);
    return parts;
}

static struct file joined(const struct parts *parts) {
    size_t count = 2;
    for (int i = 0; i < parts->count; i++)
        count += parts->list[i].count;
    struct file file = {malloc(count), count};
    file.bytes[0] = 0xFF;
    file.bytes[1] = 0xD8;
    size_t at = 2;
    for (int i = 0; i < parts->count; i++) {
        memcpy(file.bytes + at, parts->list[i].bytes, parts->list[i].count);
        at += parts->list[i].count;
    }
    return file;
}

static void release(struct parts *parts) {
    for (int i = 0; i < parts->count; i++)
        free(parts->list[i].bytes);
}

/* Put bytes into a part, or cut some out of it. */
static void splice(struct part *part, size_t at, size_t cut, const uint8_t *bytes, size_t count) {
    cut = cut < part->count - at ? cut : part->count - at;
    size_t behind = part->count - at - cut;
    uint8_t *made = malloc(at + count + behind + 1);
    memcpy(made, part->bytes, at);
    if (count)
        memcpy(made + at, bytes, count);
    memcpy(made + at + count, part->bytes + at + cut, behind);
    free(part->bytes);
    part->bytes = made;
    part->count = at + count + behind;
}

static void write_length(struct part *part) {
    part->bytes[2] = (uint8_t)((part->count - 2) >> 8);
    part->bytes[3] = (uint8_t)(part->count - 2);
}

static void insert_part(struct parts *parts, int place, struct part part) {
    if (parts->count == MAX_PARTS) {
        free(part.bytes);
        return;
    }
    memmove(parts->list + place + 1, parts->list + place,
            (size_t)(parts->count - place) * sizeof *parts->list);
    parts->list[place] = part;
    parts->count++;
}

static void remove_part(struct parts *parts, int place) {
    free(parts->list[place].bytes);
    parts->count--;
    memmove(parts->list + place, parts->list + place + 1,
            (size_t)(parts->count - place) * sizeof *parts->list);
}

/* Draw a part with a marker of this range, NULL without one. */
static struct part *a_part(struct parts *parts, int from, int to) {
    int found[MAX_PARTS], count = 0;
    for (int i = 0; i < parts->count; i++) {
        int marker = parts->list[i].marker;
        if (marker >= from && marker <= to && (from != SOF0 || marker != DHT))
            found[count++] = i;
    }
    return count ? &parts->list[found[fuzz_draw((uint32_t)count)]] : NULL;
}

static void change_side(uint8_t *side) {
    int value = side[0] << 8 | side[1];
    switch (fuzz_draw(8)) {
    case 0: value = 1 + (int)fuzz_draw(20); break;
    case 1: value = (int)(fuzz_draw(65536) >> fuzz_draw(16)); break;
    case 2: value ^= 1 << fuzz_draw(9); break;
    default: value += (int)fuzz_draw(35) - 17;
    }
    side[0] = (uint8_t)(value >> 8);
    side[1] = (uint8_t)value;
}

static void change_frame(struct part *part) {
    static const uint8_t samplings[] = {0x11, 0x21, 0x12, 0x22, 0x41, 0x14, 0x42, 0x24, 0x31,
                                        0x13, 0x33, 0x44, 0x32, 0x23, 0x10, 0x01, 0x51};
    static const uint8_t processes[] = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA, 0xC3, 0xC5, 0xC8};
    if (part->count < 13)
        return;
    size_t component = 10 + 3 * (size_t)fuzz_draw((uint32_t)(part->count - 10) / 3);
    uint8_t *at = part->bytes + component;
    switch (fuzz_draw(9)) {
    case 0: change_side(part->bytes + 5); break;
    case 1: change_side(part->bytes + 7); break;
    case 2: case 3: case 4: at[1] = samplings[fuzz_draw(sizeof samplings)]; break;
    case 5: at[2] = (uint8_t)fuzz_draw(5); break;
    case 6: at[0] = "\0\1\2\3RGBY"[fuzz_draw(8)]; break;
    case 7: part->bytes[fuzz_draw(2) ? 4 : 9] = (uint8_t)fuzz_draw(17); break;
    default: part->bytes[1] = processes[fuzz_draw(sizeof processes)];
    }
}

static void change_scan_header(struct part *part) {
    size_t last = part->count - 1;
    if (part->count < 10)
        return;
    switch (fuzz_draw(6)) {
    case 0: part->bytes[last - 2] = (uint8_t)fuzz_draw(66); break;
    case 1: part->bytes[last - 1] = (uint8_t)fuzz_draw(66); break;
    case 2: part->bytes[last] = (uint8_t)(fuzz_draw(4) << 4 | fuzz_draw(4)); break;
    case 3: part->bytes[5 + 2 * fuzz_draw((uint32_t)(part->count - 8) / 2)] = any_byte(); break;
    default: part->bytes[6 + 2 * fuzz_draw((uint32_t)(part->count - 8) / 2)] =
        (uint8_t)(fuzz_draw(3) << 4 | fuzz_draw(3));
    }
}

/* Other symbols of the same codes, or other codes of the same symbols. */
static void change_codes(struct part *part) {
    if (part->count < 24)
        return;
    uint8_t *counts = part->bytes + 5, *symbols = counts + 16;
    size_t num_symbols = part->count - 21;
    size_t a = fuzz_draw((uint32_t)num_symbols), b = fuzz_draw((uint32_t)num_symbols);
    uint8_t held = symbols[a];
    switch (fuzz_draw(6)) {
    case 0: part->bytes[4] = (uint8_t)(fuzz_draw(2) << 4 | fuzz_draw(4)); break;
    case 1: /* a code longer, another shorter */
        a %= 16, b %= 16;
        if (counts[a] && a != b) {
            counts[a]--;
            counts[b]++;
        }
        break;
    case 2:
        symbols[a] = symbols[b];
        symbols[b] = held;
        break;
    case 3: /* a symbol that is coded twice */
        symbols[a] = symbols[b];
        break;
    default: symbols[a] = fuzz_draw(2) ? (uint8_t)(fuzz_draw(16) << 4 | (held & 15)) : any_byte();
    }
}

static void change_steps(struct part *part) {
    if (part->count < 69)
        return;
    if (fuzz_draw(3) == 0) { /* 16 bits */
        uint8_t wide[128];
        int factor = 1 << fuzz_draw(10);
        if (part->bytes[4] >> 4 || part->count != 69)
            return;
        for (int i = 0; i < 64; i++) {
            int value = part->bytes[5 + i] * factor;
            wide[2 * i] = (uint8_t)(value >> 8);
            wide[2 * i + 1] = (uint8_t)value;
        }
        part->bytes[4] |= 0x10;
        splice(part, 5, 64, wide, sizeof wide);
        write_length(part);
        return;
    }
    if (fuzz_draw(8) == 0)
        part->bytes[4] = (uint8_t)(fuzz_draw(3) << 4 | fuzz_draw(5));
    for (uint32_t i = 0, changes = 1 << fuzz_draw(7); i < changes; i++)
        part->bytes[5 + fuzz_draw((uint32_t)part->count - 5)] = any_byte();
}

/* A marker or a few bytes that mean something in a scan. */
static size_t draw_insertion(uint8_t *to) {
    size_t count = 1 + fuzz_draw(fuzz_draw(4) ? 9 : 300);
    switch (fuzz_draw(7)) {
    case 0: memcpy(to, "\xFF\xFF\0", 3); return fuzz_draw(2) ? 3 : 2;
    case 1: to[0] = 0xFF, to[1] = (uint8_t)(RST0 + fuzz_draw(8)); return 2;
    case 2: to[0] = 0xFF, to[1] = 0; return 2;
    case 3: to[0] = 0xFF, to[1] = (uint8_t)fuzz_draw(256); return 2;
    case 4: memset(to, fuzz_draw(2) ? 0 : 0xFF, count); return count;
    default:
        for (size_t i = 0; i < count; i++)
            to[i] = (uint8_t)(fuzz_draw(255));
        return count;
    }
}

/* Where a restart marker stands, or the data's end. */
static size_t restart_marker(const struct part *part, size_t at) {
    while (at + 1 < part->count && (part->bytes[at] != 0xFF || part->bytes[at + 1] < RST0 ||
                                    part->bytes[at + 1] > RST0 + 7))
        at++;
    return at + 1 < part->count ? at : part->count;
}

static void change_data(struct part *part) {
    uint8_t made[310];
    if (part->count < 2)
        return;
    size_t at = fuzz_draw((uint32_t)part->count);
    size_t marker = restart_marker(part, at);
    switch (fuzz_draw(8)) {
    case 0: case 1: part->bytes[at] ^= (uint8_t)(1 << fuzz_draw(8)); break;
    case 2: part->bytes[at] = any_byte(); break;
    case 3: splice(part, fuzz_draw(3) ? at : marker, 0, made, draw_insertion(made)); break;
    case 4: splice(part, at, 1 + fuzz_draw(fuzz_draw(4) ? 4 : 400), NULL, 0); break;
    case 5: /* one of the markers goes, or has another number, or bytes before it */
        if (marker < part->count && fuzz_draw(2))
            part->bytes[marker + 1] = (uint8_t)(RST0 + fuzz_draw(8));
        else if (marker < part->count)
            splice(part, marker, 2, NULL, 0);
        break;
    case 6: /* another place's bytes */
        splice(part, at, 0, part->bytes + fuzz_draw((uint32_t)at + 1),
               fuzz_draw((uint32_t)(part->count - at)) / 2);
        break;
    default: splice(part, part->count, 0, made, draw_insertion(made));
    }
}

static struct part drawn_segment(void) {
    static const uint8_t kinds[] = {COM, APP0, APP14, 0xE1, DNL,  DRI, DHT,
                                    DQT, 0xCC, 1,     0xDE, 0x02, 0xF0};
    uint8_t made[80] = {0xFF, kinds[fuzz_draw(sizeof kinds)]};
    size_t count = 4 + fuzz_draw(20);
    for (size_t i = 4; i < sizeof made; i++)
        made[i] = any_byte();
    switch (made[1]) {
    case APP0:
        memcpy(made + 4, "JFIF\0\1\1\0\0\1\0\1\0", 14);
        count = 18 - (fuzz_draw(4) == 0);
        break;
    case APP14:
        memcpy(made + 4, "Adobe\0d\0\0\0\0", 11);
        made[15] = (uint8_t)fuzz_draw(3);
        count = 16;
        break;
    case DRI: made[4] = 0, count = 6; break;
    case DNL: count = 6; break;
    case DQT: made[4] &= 0x13, count = 69; break;
    }
    struct part part = make_part(made[1], made, count);
    write_length(&part);
    if (fuzz_draw(12) == 0) { /* fill bytes before a marker */
        memset(part.bytes, 0xFF, 3);
        part.count = 1 + fuzz_draw(3);
        return part;
    }
    if (fuzz_draw(12) == 0)
        part.bytes[3] = (uint8_t)fuzz_draw(8); /* a length that is none */
    if (made[1] == 1 && fuzz_draw(2))
        part.count = 2;
    return part;
}

/* The order of the parts, what is there twice, what is missing, what comes from another file. */
static void change_order(struct parts *parts, const struct parts *other) {
    int at = (int)fuzz_draw((uint32_t)parts->count), to = (int)fuzz_draw((uint32_t)parts->count);
    const struct part *part = &parts->list[at];
    struct part copy;
    switch (fuzz_draw(6)) {
    case 0: /* moved */
        copy = make_part(part->marker, part->bytes, part->count);
        remove_part(parts, at);
        insert_part(parts, to < parts->count ? to : parts->count, copy);
        break;
    case 1: insert_part(parts, to, make_part(part->marker, part->bytes, part->count)); break;
    case 2: if (parts->count > 2) remove_part(parts, at); break;
    case 3:
        part = &other->list[fuzz_draw((uint32_t)other->count)];
        insert_part(parts, to, make_part(part->marker, part->bytes, part->count));
        break;
    default: insert_part(parts, fuzz_draw(3) ? to : parts->count - 1, drawn_segment());
    }
}

static void change_interval(struct part *part) {
    if (part->count == 6)
        part->bytes[5] = (uint8_t)fuzz_draw(12);
}

static void change_parts(struct parts *parts, const struct parts *other) {
    static const struct {
        int from, to;
        void (*change)(struct part *part);
    } changes[] = {{SOF0, SOF15, change_frame}, {SOF0, SOF15, change_frame},
                   {SOS, SOS, change_scan_header}, {DHT, DHT, change_codes},
                   {DQT, DQT, change_steps}, {DRI, DRI, change_interval},
                   {DATA, DATA, change_data}, {DATA, DATA, change_data},
                   {DATA, DATA, change_data}, {DATA, DATA, change_data}};
    uint32_t drawn = fuzz_draw(12);
    if (drawn >= sizeof changes / sizeof *changes) {
        change_order(parts, other);
        return;
    }
    struct part *part = a_part(parts, changes[drawn].from, changes[drawn].to);
    if (part)
        changes[drawn].change(part);
}

struct file fuzz_mutated(struct file original, struct file other) {
    struct parts parts = split(original), others = split(other);
    for (uint32_t i = 0, changes = 1 + fuzz_draw(3); i < changes; i++)
        change_parts(&parts, &others);
    struct file file = joined(&parts);
    release(&parts);
    release(&others);
    size_t count = file.count;
    switch (fuzz_draw(12)) {
    case 0: count = 1 + fuzz_draw((uint32_t)count); break;
    case 1: file.bytes[fuzz_draw((uint32_t)count)] = any_byte(); break;
    case 2: case 3: case 4: case 5: count += fuzz_draw(MAX_TAIL); break;
    }
    uint8_t *exact = malloc(count); /* so that a read behind it is seen */
    memcpy(exact, file.bytes, count < file.count ? count : file.count);
    if (count > file.count)
        memset(exact + file.count, 0, count - file.count);
    free(file.bytes);
    return (struct file){exact, count};
}
