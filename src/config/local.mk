noinst_LTLIBRARIES += %D%/libconfig.la
%C%_libconfig_la_SOURCES = \
	%D%/pidfile.h \
	%D%/pidfile.c \
	%D%/settings.h \
	%D%/settings_internal.h \
	%D%/settings.c \
	%D%/yaml.c

check_PROGRAMS += %D%/config_test
%C%_config_test_SOURCES = %D%/config_test.c
%C%_config_test_LDADD = $(TEST_LIBS) $(CONFIG_LIBS) $(TEST_END_LIBS)
