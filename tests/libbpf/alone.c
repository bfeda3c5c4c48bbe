// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Loads one program of an object by libbpf, with the others that it may tail call, and pins it: `alone OBJECT PROGRAM PIN`.
 * Then it says so and waits for the end of its input: timers and program arrays end with the last descriptor of their map.
 * What libbpf says goes to standard error. The exit status is 0 when the program was loaded, else 1.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <bpf/libbpf.h>

static int print(enum libbpf_print_level level, const char *format, va_list arguments)
{
	return level == LIBBPF_DEBUG ? 0 : vfprintf(stderr, format, arguments);
}

/* Whether an interface can run the program, as far as libbpf knows from its section; it does not know every section. */
static bool may_be_for_interfaces(const struct bpf_program *program)
{
	const char *section = bpf_program__section_name(program);

	return bpf_program__type(program) == BPF_PROG_TYPE_XDP && !strstr(section, "cpumap") && !strstr(section, "devmap");
}

static int load(const char *file, const char *name, const char *pin, bool with_others)
{
	struct bpf_object *object = bpf_object__open_file(file, NULL);
	struct bpf_program *program, *wanted;
	struct bpf_map *map;
	int error;

	if (!object)
		return 1;
	wanted = bpf_object__find_program_by_name(object, name);
	if (!wanted) {
		fprintf(stderr, "libbpf: the object has no program '%s'\n", name);
		bpf_object__close(object);
		return 1;
	}
	bpf_object__for_each_program(program, object)
		bpf_program__set_autoload(program, program == wanted || (with_others && may_be_for_interfaces(program)));
	if (bpf_program__type(wanted) != BPF_PROG_TYPE_XDP)
		bpf_program__set_type(wanted, BPF_PROG_TYPE_XDP);
	/* Each run is to have maps of its own. */
	bpf_object__for_each_map(map, object)
		bpf_map__set_pin_path(map, NULL);
	error = bpf_object__load(object);
	if (!error)
		error = bpf_program__pin(wanted, pin);
	if (!error) {
		puts("loaded");
		fflush(stdout);
		while (getchar() != EOF)
			;
	}
	bpf_object__close(object);
	return error ? 1 : 0;
}

int main(int count, char **arguments)
{
	if (count != 4) {
		fprintf(stderr, "usage: alone OBJECT PROGRAM PIN\n");
		return 2;
	}
	libbpf_set_print(print);
	if (!load(arguments[1], arguments[2], arguments[3], false))
		return 0;
	/* A program array holds others of the object's programs. */
	return load(arguments[1], arguments[2], arguments[3], true);
}
