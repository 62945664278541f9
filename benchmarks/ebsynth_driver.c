// SPDX-License-Identifier: Apache-2.0
// Runs one pass of EbSynth's library, which is not part of this project: benchmarks/ebsynth.py builds and calls it.
//
//     ebsynth_driver.exe PATH_OF_EBSYNTH_DLL < request > picture
//
// The request, little-endian: ten int32 (the fields of `Request`, in order), a float (uniformity), a float for the weight
// of each style and guide channel, then bytes in rows from the top, channels interleaved: style, guides of the source,
// guides of the target. The answer: the picture, as the style. Exit status: 2 no library, 3 no CPU in it, 4 bad request.

#include <fcntl.h>
#include <io.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

#define CPU 1
#define PLAIN_VOTE 1

struct Request {
    int32_t style_channels, guide_channels, width, height, patch_size, levels;
    int32_t search_vote_iterations, patch_match_iterations, stop_threshold, extra_3x3_pass;
};

typedef int (*Available)(int backend);
typedef void (*SetThreads)(int count);
typedef void (*Run)(
    int backend, int style_channels, int guide_channels,
    int source_width, int source_height, void *source_style, void *source_guides,
    int target_width, int target_height, void *target_guides, void *modulation,
    float *style_weights, float *guide_weights, float uniformity, int patch_size, int vote, int levels,
    int *search_vote_iterations, int *patch_match_iterations, int *stop_thresholds, int extra_3x3_pass,
    void *nearest_field, void *picture, void *errors);

static int fail(int status, const char *what) {
    fprintf(stderr, "ebsynth_driver: %s\n", what);
    return status;
}

static void *received(size_t size) {
    void *data = malloc(size);
    if (!data || fread(data, 1, size, stdin) != size) exit(fail(4, "the request ends too early"));
    return data;
}

static int *each(int levels, int value) {
    int *values = malloc(levels * sizeof *values);
    if (!values) exit(fail(4, "out of memory"));
    for (int level = 0; level < levels; level++) values[level] = value;
    return values;
}

int main(int count, char **words) {
    HMODULE library = count == 2 ? LoadLibraryA(words[1]) : NULL;
    Run run = library ? (Run)(void *)GetProcAddress(library, "ebsynthRun") : NULL;
    Available available = library ? (Available)(void *)GetProcAddress(library, "ebsynthBackendAvailable") : NULL;
    if (!run || !available) return fail(2, "no EbSynth library there");
    if (!available(CPU)) return fail(3, "this EbSynth library does not run on CPUs");
    SetThreads set_threads = (SetThreads)(void *)GetProcAddress(GetModuleHandleA("vcomp140.dll"), "omp_set_num_threads");
    if (set_threads) set_threads(1);

    _setmode(_fileno(stdin), _O_BINARY);
    _setmode(_fileno(stdout), _O_BINARY);
    struct Request *asked = received(sizeof *asked);
    float *uniformity = received(sizeof *uniformity);
    float *style_weights = received(asked->style_channels * sizeof *style_weights);
    float *guide_weights = received(asked->guide_channels * sizeof *guide_weights);
    size_t pixels = (size_t)asked->width * asked->height;
    void *style = received(pixels * asked->style_channels);
    void *source = received(pixels * asked->guide_channels);
    void *target = received(pixels * asked->guide_channels);
    char *picture = calloc(pixels, asked->style_channels);
    float *errors = calloc(pixels, sizeof *errors);
    if (!picture || !errors) return fail(4, "out of memory");

    run(CPU, asked->style_channels, asked->guide_channels, asked->width, asked->height, style, source,
        asked->width, asked->height, target, NULL, style_weights, guide_weights, *uniformity,
        asked->patch_size, PLAIN_VOTE, asked->levels, each(asked->levels, asked->search_vote_iterations),
        each(asked->levels, asked->patch_match_iterations), each(asked->levels, asked->stop_threshold),
        asked->extra_3x3_pass, NULL, picture, errors);
    size_t size = pixels * asked->style_channels;
    return fwrite(picture, 1, size, stdout) == size && fflush(stdout) == 0 ? 0 : fail(1, "the picture was not taken");
}
