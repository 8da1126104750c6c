%% The records and macros of Khepri's API, for modules that call it. Applications
%% compile the records in: neither their fields nor the order of those may change.

-ifndef(KHEPRI_HRL).
-define(KHEPRI_HRL, true).

%% -- Components of paths

%% The root, the node itself, and the node above it.
-define(KHEPRI_ROOT_NODE, $/).
-define(THIS_KHEPRI_NODE, $.).
-define(PARENT_KHEPRI_NODE, $^).

-define(IS_KHEPRI_STORE_ID(Id), is_atom(Id)).

-define(IS_KHEPRI_NODE_ID(Name), (is_atom(Name) orelse is_binary(Name))).

-define(IS_SPECIAL_KHEPRI_PATH_COMPONENT(Component),
        (Component =:= ?KHEPRI_ROOT_NODE orelse
         Component =:= ?THIS_KHEPRI_NODE orelse
         Component =:= ?PARENT_KHEPRI_NODE)).

-define(IS_KHEPRI_PATH_COMPONENT(Component),
        (is_atom(Component) orelse
         is_binary(Component) orelse
         ?IS_SPECIAL_KHEPRI_PATH_COMPONENT(Component))).

%% -- Conditions

%% A name in which a regular expression is found; any name for `any'.
-record(if_name_matches,
        {regex = any :: any | iodata() | unicode:charlist(),
         compiled = undefined :: term()}).

%% The same, of a node at any depth.
-record(if_path_matches,
        {regex = any :: any | iodata() | unicode:charlist(),
         compiled = undefined :: term()}).

-record(if_has_payload, {has_payload = true :: boolean()}).
-record(if_has_data, {has_data = true :: boolean()}).
-record(if_has_sproc, {has_sproc = true :: boolean()}).

%% Data that meets a match specification of ETS.
-record(if_data_matches,
        {pattern = '_' :: term(),
         conditions = [] :: [term()],
         compiled = undefined :: term()}).

-record(if_node_exists, {exists = true :: boolean()}).

%% A number, or `{eq | ne | lt | le | gt | ge, Number}'.
-record(if_payload_version, {version = 0 :: non_neg_integer() | {atom(), non_neg_integer()}}).
-record(if_child_list_version, {version = 0 :: non_neg_integer() | {atom(), non_neg_integer()}}).
-record(if_child_list_length, {count = 0 :: non_neg_integer() | {atom(), non_neg_integer()}}).

%% What the condition does not, all of them do, or one of them does match.
-record(if_not, {condition :: term()}).
-record(if_all, {conditions = [] :: [term()]}).
-record(if_any, {conditions = [] :: [term()]}).

-define(KHEPRI_WILDCARD_STAR, #if_name_matches{regex = any}).
-define(KHEPRI_WILDCARD_STAR_STAR, #if_path_matches{regex = any}).

-define(IS_KHEPRI_CONDITION(Term),
        (is_record(Term, if_name_matches) orelse
         is_record(Term, if_path_matches) orelse
         is_record(Term, if_has_payload) orelse
         is_record(Term, if_has_data) orelse
         is_record(Term, if_has_sproc) orelse
         is_record(Term, if_data_matches) orelse
         is_record(Term, if_node_exists) orelse
         is_record(Term, if_payload_version) orelse
         is_record(Term, if_child_list_version) orelse
         is_record(Term, if_child_list_length) orelse
         is_record(Term, if_not) orelse
         is_record(Term, if_all) orelse
         is_record(Term, if_any))).

-define(IS_KHEPRI_PATH_CONDITION(Term),
        (?IS_KHEPRI_PATH_COMPONENT(Term) orelse ?IS_KHEPRI_CONDITION(Term))).

%% -- Paths. Of a list, the guards look at the first element only.

-define(IS_KHEPRI_PATH(Path),
        (is_list(Path) andalso
         (Path =:= [] orelse ?IS_KHEPRI_PATH_COMPONENT(hd(Path))))).

-define(IS_KHEPRI_PATH_PATTERN(Path),
        (is_list(Path) andalso
         (Path =:= [] orelse ?IS_KHEPRI_PATH_CONDITION(hd(Path))))).

%% Strings count, too.
-define(IS_KHEPRI_PATH_OR_COMPAT(Path),
        (is_binary(Path) orelse
         ?IS_KHEPRI_PATH(Path) orelse
         (is_list(Path) andalso is_integer(hd(Path)) andalso hd(Path) >= 0))).

-define(IS_KHEPRI_PATH_PATTERN_OR_COMPAT(Path),
        (is_binary(Path) orelse
         ?IS_KHEPRI_PATH_PATTERN(Path) orelse
         (is_list(Path) andalso is_integer(hd(Path)) andalso hd(Path) >= 0))).

%% -- Triggers

%% What a triggered procedure of a store of version 4 gets.
-record(khepri_trigger,
        {type :: tree | process,
         store_id :: atom(),
         trigger_id :: atom(),
         event = #{} :: map(),
         action = #{} :: map()}).

%% -- Errors

%% Returned in `{error, _}'.
-define(khepri_error(Name, Props), {khepri, Name, Props}).

%% Raised.
-define(khepri_exception(Name, Props), {khepri_ex, Name, Props}).

-endif.
